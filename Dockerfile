# `ban-jax` for a user without rights; it needs no network. docs/ci.md has the command line.
FROM python:3.12-slim AS build
COPY . /source
RUN python -m venv /ban_jax && /ban_jax/bin/pip install --no-cache-dir /source

FROM python:3.12-slim
COPY --from=build /ban_jax /ban_jax
RUN useradd --uid 10001 --no-create-home scanner && install --directory --owner scanner /work
# Results, compiled programs and the secret that seals results are kept below /work.
ENV HOME=/work PATH=/ban_jax/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
USER 10001
ENTRYPOINT ["ban-jax"]
CMD ["--help"]
