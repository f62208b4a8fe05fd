"""Manifests for Kubernetes, a folder for kustomize. Pure.

The arithmetic is admission control: what could run at once must fit the budget, or there is no file.
"""

import json
from dataclasses import dataclass

from fullhouse.deploy.deployment import Deployment
from fullhouse.deploy.image import METRICS_PORT, MIGRATE, PORT, USER_ID, served_words, variables
from fullhouse.errors import ConfigurationError, PlanError
from fullhouse.plan.plan import ServerPlan

# A rolling update starts one pod more before it ends one; minReadySeconds lets that one end before the next.
SURGE, TERMINATING = 1, 1
ANYWHERE = "0.0.0.0"  # noqa: S104  a pod's addresses are its own
# The migrations of a new version are a host of their own.
MIGRATING = 1
LEAST = 2  # replicas: one may be lost
# A pod goes on serving for so long after its end was asked for, until no proxy sends it requests any more.
STOP_DELAY_S = 5


@dataclass(frozen=True)
class Replicas:
    """How many pods may serve, and how that came about."""

    most: int
    why: str


def replicas(site: Deployment) -> Replicas:
    """Raises PlanError where not even LEAST of them fit, together with what else may run at once."""
    beside = SURGE + TERMINATING + MIGRATING
    if not site.servers:
        raise PlanError(
            "No alias has an ENGINE of fullhouse on a database server: pods could share no budget, and SQLite's file "
            "belongs to one host.\nChange the ENGINE, or run one pod."
        )
    if isinstance(site.hosts, int):
        most, why = site.hosts - beside, f"hosts - {beside} = {site.hosts} - {beside}"
        if most < LEAST:
            raise PlanError(
                f"hosts is {site.hosts}, and {LEAST} replicas with {SURGE} more in a rolling update, {TERMINATING} "
                f"that ends and {MIGRATING} that migrates are {LEAST + beside} hosts.\n"
                "Set hosts to fleet: they then share the budget as they need it."
            )
        return Replicas(most, why)
    return min((_of_server(site, server, beside) for server in site.servers), key=lambda found: found.most)


def _of_server(site: Deployment, server: ServerPlan, beside: int) -> Replicas:
    names, floor = ", ".join(server.limit.aliases), site.workers * len(server.limit.pooled)
    by_budget, by_keepers = server.slots // floor - beside, (server.most_hosts or 0) - beside
    if min(by_budget, by_keepers) < LEAST:
        needed = floor * (LEAST + beside)
        raise PlanError(
            f"{LEAST} replicas with {SURGE} more in a rolling update, {TERMINATING} that ends and {MIGRATING} that "
            f"migrates need {needed} sessions of {server.limit.server} ({site.workers} workers × "
            f"{len(server.limit.pooled)} alias(es) each) and {LEAST + beside} keepers, and there are {server.slots} "
            f"and {server.most_hosts}.\nLower the workers (--workers), or raise the database's limit."
        )
    if by_budget <= by_keepers:
        return Replicas(
            by_budget, f"budget of {names} / {floor} for each - {beside} = {server.slots} / {floor} - {beside}"
        )
    return Replicas(by_keepers, f"keepers of {names} - {beside} = {server.most_hosts} - {beside}")


def kustomization(site: Deployment) -> str:
    return f"""# fullhouse deploy kubernetes {site.project}: kubectl apply --kustomize FOLDER
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [deployment.yaml, service.yaml, disruption.yaml, autoscaler.yaml]
# migrate.yaml runs before, for each version.
images:
  - name: {site.project}
    newTag: latest
"""


def deployment(site: Deployment) -> str:
    """The pods. Raises PlanError where they do not fit the budget."""
    found, observe = replicas(site), _observe(site)
    grace_s = site.stop_s + (0 if site.stop_delay_s else STOP_DELAY_S)
    return f"""# fullhouse deploy kubernetes {site.project}
# At most {found.most} replicas: {found.why}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {site.project}
  labels: {{app: {site.project}}}
spec:
  replicas: {LEAST}
  # With these, no more than one pod ends while another starts.
  minReadySeconds: {grace_s}
  strategy:
    rollingUpdate: {{maxSurge: {SURGE}, maxUnavailable: 0}}
  selector:
    matchLabels: {{app: {site.project}}}
  template:
    metadata:
      labels: {{app: {site.project}}}
      annotations: {{prometheus.io/scrape: "true", prometheus.io/port: "{_port(observe)}"}}
    spec:
{_pod(site, grace_s)}"""


def _observe(site: Deployment) -> str:
    """Where the autoscaler's figures come from. Raises ConfigurationError for an address that only the pod reaches."""
    observe = site.observe or f"{ANYWHERE}:{METRICS_PORT}"
    if not observe.startswith((f"{ANYWHERE}:", "[::]:")) or _port(observe) == "0":
        raise ConfigurationError(
            f"observe is {site.observe}: nothing else reaches that in a pod, and the autoscaler needs its metrics.\n"
            f"Set it to {ANYWHERE}:{METRICS_PORT}, here or with --observe; the live page stays for the pod alone."
        )
    return observe


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _pod(site: Deployment, grace_s: int) -> str:
    return f"""      # Above stop_delay and graceful_timeout, {site.graceful_timeout_s} s.
      terminationGracePeriodSeconds: {grace_s}
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: {USER_ID}
        runAsGroup: {USER_ID}
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: {site.project}
          image: {site.project}
          imagePullPolicy: IfNotPresent
          args: {json.dumps(served_words(site))}
          ports: [{{containerPort: {PORT}, name: http}}, {{containerPort: {_port(_observe(site))}, name: metrics}}]
{_environment(site)}          # The pod's plan is made for these; a worker computes on one processor.
          resources:
            requests: {{cpu: "{site.workers}", memory: {site.memory >> 20}Mi}}
            limits: {{cpu: "{site.workers}", memory: {site.memory >> 20}Mi}}
          # Not ready before it has a session, so that a rollout waits for the fleet.
          startupProbe:
            httpGet: {{path: /-/ready, port: http}}
            periodSeconds: 2
            failureThreshold: {max(1, site.boot_timeout_s // 2)}
          readinessProbe:
            httpGet: {{path: /-/ready, port: http}}
            periodSeconds: 2
          livenessProbe:
            httpGet: {{path: /-/live, port: http}}
            periodSeconds: 10
            timeoutSeconds: 5
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts: [{{name: tmp, mountPath: /tmp}}]
      volumes: [{{name: tmp, emptyDir: {{}}}}]
"""


def _environment(site: Deployment) -> str:
    """What decides what is served; secrets come from a Secret of the site's name."""
    found = variables(site, _observe(site)) | {"FULLHOUSE_STOP_DELAY": str(site.stop_delay_s or STOP_DELAY_S)}
    lines = "".join(
        f"            - {{name: {name}, value: {json.dumps(value)}}}\n" for name, value in sorted(found.items())
    )
    return f"""          # kubectl create secret generic {site.project} --from-env-file {site.project}.env
          envFrom: [{{secretRef: {{name: {site.project}, optional: true}}}}]
          env:
{lines}"""


def service(site: Deployment) -> str:
    return f"""# fullhouse deploy kubernetes {site.project}
apiVersion: v1
kind: Service
metadata:
  name: {site.project}
spec:
  selector: {{app: {site.project}}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"""


def disruption(site: Deployment) -> str:
    return f"""# fullhouse deploy kubernetes {site.project}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {site.project}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{app: {site.project}}}
"""


def autoscaler(site: Deployment) -> str:
    """Raises PlanError."""
    found = replicas(site)
    return f"""# fullhouse deploy kubernetes {site.project}
# At most {found.most} replicas: {found.why}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {site.project}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {site.project}}}
  minReplicas: {LEAST}
  maxReplicas: {found.most}
  metrics:
    # How long requests wait for a thread: from the pods' /metrics, by Prometheus and an adapter for custom metrics.
    - type: Pods
      pods:
        metric: {{name: fullhouse_queue_oldest_wait_seconds}}
        target: {{type: AverageValue, averageValue: 200m}}
    - type: Resource
      resource:
        name: cpu
        target: {{type: Utilization, averageUtilization: 70}}
  behavior:
    scaleUp:
      policies: [{{type: Pods, value: {SURGE}, periodSeconds: 15}}]
"""


def migrate(site: Deployment) -> str:
    """A Job. Its pod is a host of the fleet, and counted as one."""
    return f"""# fullhouse deploy kubernetes {site.project}: for each version, before its pods
#   kubectl replace --force -f migrate.yaml && kubectl wait --for=condition=complete job/{site.project}-migrate
apiVersion: batch/v1
kind: Job
metadata:
  name: {site.project}-migrate
spec:
  parallelism: {MIGRATING}
  backoffLimit: 2
  ttlSecondsAfterFinished: 3600
  template:
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      securityContext: {{runAsNonRoot: true, runAsUser: {USER_ID}, runAsGroup: {USER_ID}}}
      containers:
        - name: migrate
          image: {site.project}
          imagePullPolicy: IfNotPresent
          args: {json.dumps(MIGRATE)}
{_environment(site)}          volumeMounts: [{{name: tmp, mountPath: /tmp}}]
      volumes: [{{name: tmp, emptyDir: {{}}}}]
"""
