# The image holds one static binary, the CA certificates, the licences, and the socket's empty
# directory: no shell, no package manager, nothing else. docs/image.md says how it is built, checked
# and signed; `make test-image` builds and runs it.
#   docker buildx build --platform linux/amd64,linux/arm64 \
#     --build-arg VERSION=$(git describe --tags --always) --build-arg REVISION=$(git rev-parse HEAD) .

# A release names the builder by its digest (golang@sha256:...): the compiler and the certificates come from it.
ARG GO_IMAGE=docker.io/library/golang:1.26-bookworm

# The builder runs on the building machine's own platform and compiles for the target's.
FROM --platform=$BUILDPLATFORM $GO_IMAGE AS build
WORKDIR /src

# Where modules come from: Go's own defaults, unless the build is told otherwise.
ARG GOPROXY
ARG GOSUMDB

# The modules have a layer of their own: it is built again only when they change.
COPY go.mod go.sum ./
COPY gen/go.mod gen/go.sum gen/
# gen, a module of its own, comes from this tree: its version need not be published.
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod edit -replace github.com/secret-sidecar/secret-sidecar/gen=./gen && go mod download

ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
ARG REVISION=unknown
COPY . .
# As `make build` does it, to the byte: no paths, no time, no state of a repository that is not here.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go mod edit -replace github.com/secret-sidecar/secret-sidecar/gen=./gen && go work init . ./gen && \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION -X main.revision=$REVISION" \
      -o /out/secret-sidecar ./cmd/secret-sidecar

# The directory of the default socket. A volume mounted over it for the first time takes its owner and mode.
RUN mkdir -p -m 0700 /out/run/secret-sidecar && chown 65532:65532 /out/run/secret-sidecar

FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
# org.opencontainers.image.created is the commit's time, never the clock's: `make image` adds it with --label.
LABEL org.opencontainers.image.title="secret-sidecar" \
      org.opencontainers.image.description="Resolves HashiCorp Vault secrets for a flow worker over a local Unix socket" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="https://github.com/secret-sidecar/secret-sidecar" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/run /run
COPY --from=build /out/secret-sidecar /secret-sidecar
# With a mode, so that the one of the work tree does not get in.
COPY --chmod=0644 LICENSE cmd/secret-sidecar/THIRD_PARTY_LICENSES /usr/share/doc/secret-sidecar/
# Numeric, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/secret-sidecar"]
CMD ["serve"]
