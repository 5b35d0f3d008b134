# Set-up is the project's own, so that versions are said once; TORCH_INDEX_URL as in README.
FROM python:3.11-slim
ARG TORCH_INDEX_URL
WORKDIR /app
COPY . .
RUN .ci/setup
ENV PATH=/app/.venv/bin:$PATH
