# The image holds one static binary, the CA certificates, and the socket's empty folder: no shell, no package
# manager, nothing else. Build it for any platform:
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=$(git describe --tags --always) .

# The builder runs on the building machine's own platform and compiles for the target's.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src

# The modules have a layer of their own: it is built again only when they change.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download

ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/secret-sidecar ./cmd/secret-sidecar

# The folder of the default socket. A volume mounted over it for the first time takes its owner and mode.
RUN install -d -m 0700 -o 65532 -g 65532 /out/run/secret-sidecar

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="secret-sidecar" \
      org.opencontainers.image.description="Resolves HashiCorp Vault secrets for a flow worker over a local Unix socket" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.source="https://github.com/secret-sidecar/secret-sidecar" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /out/run/secret-sidecar /run/secret-sidecar
COPY --from=build /out/secret-sidecar /secret-sidecar
# Numeric, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/secret-sidecar"]
CMD ["serve"]
