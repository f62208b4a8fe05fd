"""Settings of the site that is served, from the environment: every contender serves the same views."""

import json
import os

SECRET_KEY = "benchmark"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "bench_site"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]  # Content-Length, which uWSGI needs to keep a connection
if "BENCH_DELAY" in os.environ:
    MIDDLEWARE.append("late_answers.late")
WSGI_APPLICATION = "bench_site.application"
INSTALLED_APPS = ["django.contrib.contenttypes"]
DATABASES = {"default": json.loads(os.environ["BENCH_DATABASE"])}
FULLHOUSE = json.loads(os.environ["BENCH_PLAN"])
