"""Prometheus metrics of jobs. No id is ever a label."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

JOBS_CREATED = Counter("triton_jobs_created_total", "Jobs submitted", ["job_type"])
JOBS_COMPLETED = Counter("triton_jobs_completed_total", "Jobs that made a document")
JOBS_FAILED = Counter("triton_jobs_failed_total", "Jobs that failed for good", ["code"])
JOBS_CANCELLED = Counter("triton_jobs_cancelled_total", "Jobs that were cancelled")
JOB_DURATION = Histogram("triton_job_duration_seconds", "From a job's first claim to its end", buckets=_SECONDS)
JOB_QUEUE_WAIT = Histogram("triton_job_queue_wait_seconds", "From when a job is due to its claim", buckets=_SECONDS)
# each process sees the same table
JOBS_PENDING = Gauge(
    "triton_jobs_pending",
    "Jobs that wait for a worker, as the last sweep saw them",
    multiprocess_mode="livemostrecent",
)
OLDEST_PENDING = Gauge(
    "triton_oldest_pending_job_age_seconds",
    "Age of the oldest pending job that is due; 0 without one",
    multiprocess_mode="livemostrecent",
)
WEBHOOK_DELIVERIES = Counter(
    "triton_webhook_deliveries_total", "Attempts at webhooks: delivered, retrying or failed", ["outcome"]
)
