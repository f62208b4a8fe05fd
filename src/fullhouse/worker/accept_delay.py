"""How long a busy worker leaves a new connection to its siblings. Pure."""

# Puma's numbers (lib/puma/cluster_accept_loop_delay.rb): the longest delay, and at what load it is reached
MAX_ACCEPT_DELAY_S = 0.005
FULL_LOAD_PER_THREAD = 25


def accept_delay_s(in_flight: int, threads: int) -> float:
    """How long to wait before accepting, so that a sibling with less to do comes first."""
    full_load = FULL_LOAD_PER_THREAD * threads
    return MAX_ACCEPT_DELAY_S * min(in_flight, full_load) / full_load
