"""The application a shop deploys: Celery workers on Redis that run nights."""
