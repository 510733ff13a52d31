# Walview's image: the program, its licence, and nothing to log into.
#
#   docker build -t walview .
#   docker build --build-arg PROFILE_GUIDED=1 -t walview .     # a tenth less CPU, twice the time
#   docker run --rm -v ./pipeline:/etc/walview:ro walview check /etc/walview/betting.yaml
#
# No "# syntax=" line: every BuildKit has what is used here, and a build then fetches no frontend.

ARG RUST=1.95-bookworm

FROM rust:${RUST} AS build
# Debug information would be two thirds of the program; symbols stay, so panics name functions.
ENV CARGO_PROFILE_RELEASE_DEBUG=none \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo
WORKDIR /src
# Whatever it is set to, `make release` builds the program (scripts/profile-guided), for which the demo runs
# in this stage with servers of Debian's packages and ClickHouse's engine from npm.
ARG PROFILE_GUIDED=
COPY . .
# Dependencies and what was compiled stay in the cache of the builder, not in a layer. `locked`: two
# builds at once would share one target folder.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    if [ -n "$PROFILE_GUIDED" ]; then \
        apt-get update && apt-get install --yes --no-install-recommends npm \
        && scripts/profile-guided && program=target/profile-guided/release/walview; \
    else \
        cargo build --locked --release --package walview --bin walview && program=target/release/walview; \
    fi \
    && install -D "$program" /image/usr/local/bin/walview \
    && install -D --mode=644 LICENSE /image/usr/share/doc/walview/LICENSE \
    && install -d --mode=700 /state

# glibc, libgcc, certificates; no shell, no package manager. Same Debian as the stage above.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="walview" \
      org.opencontainers.image.description="SQL views over PostgreSQL, kept exactly in Redis and ClickHouse" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# A named volume takes owner and mode from here when it is first mounted.
COPY --from=build --chown=65532:65532 /state/ /var/lib/walview/
# By number, so that `runAsNonRoot` and the like can tell.
USER 65532:65532
WORKDIR /var/lib/walview
STOPSIGNAL SIGTERM
EXPOSE 7878
ENTRYPOINT ["walview"]
CMD ["--help"]
