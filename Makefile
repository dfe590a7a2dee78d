# secret-sidecar: `make help` lists the targets; CONTRIBUTING.md says how they hang together.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TOOLS   := .tools/bin
STAMPS  := .tools/stamps
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# Where `make build` puts the program; GOARCH=arm64 builds it for another processor.
BIN := bin

# Which Vault `make demo` runs on: dev (embedded, nothing to build) or real. An environment variable does not
# change it, only `make demo VAULT=real` does.
VAULT := dev

# How long `make soak` soaks and `make fuzz` fuzzes each target.
SOAK := 30m
FUZZ := 60s

# How often `make test-busy` runs the tests.
BUSY_RUNS := 1

# The real Vault of the tests: one named by VAULT_BINARY, else one on PATH, else built from e2e/realvault.
VAULT_BINARY ?= $(or $(shell command -v vault),$(CURDIR)/$(TOOLS)/vault)

# The tools, installed from the Go module proxy in exactly these versions.
BUF_VERSION                := v1.75.0
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
GOLANGCI_LINT_VERSION      := v2.15.0
GRPCURL_VERSION            := v1.9.4
GRPC_HEALTH_PROBE_VERSION  := v0.4.61
CYCLONEDX_GOMOD_VERSION    := v1.10.0
COSIGN_VERSION             := v3.1.3

# stamp NAME,VERSION: the file that says that this version of a tool is in .tools/bin.
stamp = $(STAMPS)/$(1)-$(2)

##@ Use

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## build bin/secret-sidecar, a static binary, and put the licences of what it links beside it
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION) -X main.revision=$(REVISION)" \
	  -o $(BIN)/secret-sidecar ./cmd/secret-sidecar
	@cp LICENSE cmd/secret-sidecar/THIRD_PARTY_LICENSES $(BIN)/

.PHONY: image
image: ## build the image for amd64 and arm64 with buildah into bin/image, an OCI layout
	VERSION='$(VERSION)' REVISION='$(REVISION)' scripts/image.sh .tools/image/build bin/image

.PHONY: sbom
sbom: build $(call stamp,cyclonedx-gomod,$(CYCLONEDX_GOMOD_VERSION)) ## list what the program is made of in bin/secret-sidecar.cdx.json
	$(TOOLS)/cyclonedx-gomod bin -json -std -noserial -notimestamp -version '$(VERSION)' \
	  -output $(BIN)/secret-sidecar.cdx.json $(BIN)/secret-sidecar

.PHONY: demo
demo: build $(if $(filter real,$(VAULT)),real-vault) ## show it at work on the embedded Vault; VAULT=real: on a real one
	@VAULT_BINARY='$(VAULT_BINARY)' go run -trimpath ./scripts/demo -vault $(VAULT) -binary bin/secret-sidecar

##@ Check

# go test follows the variables that tests read, so a cached result never stands for another Vault.
export GRPCURL            := $(CURDIR)/$(TOOLS)/grpcurl
export GRPC_HEALTH_PROBE  := $(CURDIR)/$(TOOLS)/grpc-health-probe
GO_TEST := go test -race -timeout 20m
# e2e takes the longest, so it begins first; "work" is every module of go.work.
PACKAGES := ./e2e work
ON_REAL_VAULT := VAULT_BINARY='$(VAULT_BINARY)' SECRET_SIDECAR_REQUIRE_REAL_VAULT=1

.PHONY: test
test: c-compiler ## run every test with -race, on the real Vault too (built the first time)
	@$(MAKE) --no-print-directory --jobs=2 real-vault test-clients test-monitoring # linking leaves a core idle
	@$(MAKE) --no-print-directory test-overload
	$(ON_REAL_VAULT) $(GO_TEST) $(PACKAGES)

# -count=1 is for every go test below, so that none of them shows a result of before.
.PHONY: test-busy
test-busy: ## run every test BUSY_RUNS times, beside two busy loops for each processor
	for run in $$(seq $(BUSY_RUNS)); do \
	  GOFLAGS='$(GOFLAGS) -count=1' scripts/busy.sh $(MAKE) --no-print-directory test; done

# Kustomize and Helm are tools of the nested module, so that what they share with Kubernetes' own code is compiled once.
# Helm takes the version of Kubernetes that it renders for from the linker, as its own releases do; it is client-go's.
# Without -count=1, go test would keep a result when deploy/ has changed: it is outside of the nested module.
HELM_VERSIONS := helm.sh/helm/v3/pkg/chartutil
.PHONY: test-manifests
test-manifests: ## render what is in deploy/ and let Kubernetes' own code judge it
	cd e2e/manifests && export GOWORK=off && minor=$$(go list -m -f '{{.Version}}' k8s.io/client-go | cut -d. -f2) && \
	  go build -ldflags "-X $(HELM_VERSIONS).k8sVersionMajor=1 -X $(HELM_VERSIONS).k8sVersionMinor=$$minor" \
	  -o '$(CURDIR)/$(TOOLS)/' sigs.k8s.io/kustomize/kustomize/v5 helm.sh/helm/v3/cmd/helm
	cd e2e/manifests && GOWORK=off KUSTOMIZE='$(CURDIR)/$(TOOLS)/kustomize' HELM='$(CURDIR)/$(TOOLS)/helm' \
	  go test -timeout 20m -count=1 ./...

.PHONY: test-node
test-node: client/node/node_modules/.package-lock.json ## test the Node client, and what would be published of it (Node.js 20)
	cd client/node && npm test && npm run test:published

.PHONY: test-overload
test-overload: real-vault # the tests of load and of a long text, alone on the machine and without -race, which would distort them
	$(ON_REAL_VAULT) go test -timeout 10m -run '^TestOverload|^TestInAHundredMegabytes|^TestScanningALongLog' ./e2e ./internal/leak

.PHONY: test-monitoring
test-monitoring: # the dashboard and the alerts, with Prometheus's own code, in a module of its own
	cd e2e/monitoring && GOWORK=off go test -timeout 10m -count=1 ./...

.PHONY: test-fast
test-fast: c-compiler test-clients ## run the tests without the real Vault
	env -u VAULT_BINARY -u SECRET_SIDECAR_REQUIRE_REAL_VAULT $(GO_TEST) $(PACKAGES)

.PHONY: test-image
test-image: ## build the image twice, with this machine's Go as its base, look at it and run it (as root)
	VERSION='$(VERSION)' REVISION='$(REVISION)' scripts/image-test.sh .tools/image/test

.PHONY: test-signing
test-signing: $(call stamp,cosign,$(COSIGN_VERSION)) ## the same, and sign it with cosign, which takes 4 minutes to build
	COSIGN='$(CURDIR)/$(TOOLS)/cosign' $(MAKE) --no-print-directory test-image
	go test -count=1 -run '^TestCommandsThatRunElsewhere' ./e2e

.PHONY: test-install
test-install: ## install what HEAD holds as `go install` will once it has a tag
	scripts/install-test.sh

.PHONY: soak
soak: real-vault ## run a sidecar for SOAK under load, rotation and faults, and watch that nothing grows
	$(ON_REAL_VAULT) go test -v -count=1 -timeout 24h -run '^TestSoak$$' ./e2e -soak $(SOAK)

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZ, two at a time
	scripts/fuzz.sh $(FUZZ)

.PHONY: bench
bench: build ## measure against a bare gRPC server, Vault and Vault Proxy (see make real-vault), and write docs/benchmarks.md
	go run -trimpath ./bench -vault '$(VAULT_BINARY)'

.PHONY: bench-quick
bench-quick: build ## the first ratios of it, in less than a minute
	go run -trimpath ./bench -quick -vault '$(VAULT_BINARY)'

.PHONY: outage-picture
outage-picture: build ## play an outage under load, and draw what the metrics say into docs/observability/
	go run -trimpath ./scripts/outagepicture

.PHONY: pictures
pictures: ## draw the charts of both again, from the numbers that are kept in docs/
	go run -trimpath ./bench -draw
	go run -trimpath ./scripts/outagepicture -draw

.PHONY: bench-coldstart
bench-coldstart: build ## from the start of the process to its first answer and its first secret, in half a minute
	go run -trimpath ./bench -coldstart -vault '$(VAULT_BINARY)'

.PHONY: bench-clients
bench-clients: build client/node/node_modules/.package-lock.json ## measure the client libraries in 5 minutes, and put the numbers into docs/benchmarks.md
	cd client/node && npm run --silent build
	go run -trimpath ./bench -clients

.PHONY: profile
profile: build ## write CPU, heap, mutex and block profiles of cached Resolves to profiles/, and show where they begin
	go run -trimpath ./bench -profile profiles

.PHONY: lint
lint: lint-mod lint-licenses lint-proto lint-gen lint-imports lint-go ## check code, licences, protos, generated code and imports

# The parts of lint; each runs alone too.
.PHONY: lint-mod lint-licenses lint-proto lint-gen lint-imports lint-go

lint-mod: # go.mod and go.sum of every module are tidy
	scripts/tidy.sh -diff

lint-licenses: # every linked module may be shipped, and its licence is in what the program prints
	go run -trimpath ./scripts/licenses -check

lint-proto: tools-proto # the protos are in style and break no client of the main branch
	$(TOOLS)/buf lint
	scripts/proto-breaking.sh $(TOOLS)/buf

lint-gen: tools-proto client/node/node_modules/.package-lock.json # gen/ is what proto/ generates
	scripts/gen-check.sh $(TOOLS)/buf

lint-imports: # the import directions hold; `make test` runs this too
	go test -count=1 ./internal/archtest

lint-go: $(call stamp,golangci-lint,$(GOLANGCI_LINT_VERSION)) # golangci-lint, the formatters included
	$(TOOLS)/golangci-lint run ./... ./bench/... ./client/... ./e2e/... ./gen/... ./scripts/...
	cd e2e/manifests && GOWORK=off '$(CURDIR)/$(TOOLS)/golangci-lint' run --config ../../.golangci.yml

##@ Work

.PHONY: gen
gen: tools-proto client/node/node_modules/.package-lock.json ## generate gen/ from proto/
	$(TOOLS)/buf generate

.PHONY: licenses
licenses: ## write the licences and notices of what the program links, after a change of go.mod
	go run -trimpath ./scripts/licenses

.PHONY: tools
tools: tools-proto test-clients $(call stamp,golangci-lint,$(GOLANGCI_LINT_VERSION)) ## install the pinned tools into .tools/bin

.PHONY: clean
clean: ## remove what build and test leave
	rm -rf bin coverage.out

.PHONY: clean-tools
clean-tools: ## remove the installed tools and the real Vault
	rm -rf .tools

# ---- Behind the targets

.PHONY: FORCE
FORCE:

.PHONY: c-compiler
c-compiler:
	@command -v "$$(go env CC)" >/dev/null || { \
	  echo "go test -race needs a C compiler, and there is no $$(go env CC): apt-get install gcc libc6-dev" >&2; exit 1; }

.PHONY: real-vault
real-vault:
	@scripts/real-vault.sh '$(VAULT_BINARY)' '$(CURDIR)/$(TOOLS)/vault'

# The Node client's own tools: the compiler, and the generator that buf calls.
client/node/node_modules/.package-lock.json: client/node/package-lock.json
	@command -v npm >/dev/null || { echo "the Node client needs Node.js 20 with npm" >&2; exit 1; }
	cd client/node && npm ci --no-audit --no-fund

.PHONY: tools-proto
tools-proto: $(call stamp,buf,$(BUF_VERSION)) \
  $(call stamp,protoc-gen-go-grpc,$(PROTOC_GEN_GO_GRPC_VERSION))

.PHONY: test-clients
test-clients: $(call stamp,grpcurl,$(GRPCURL_VERSION)) \
  $(call stamp,grpc-health-probe,$(GRPC_HEALTH_PROBE_VERSION))

# tool NAME,VERSION,PACKAGE: the rule that installs a tool and leaves its stamp. It runs again when the version
# above changes or the binary is gone.
define tool
$(call stamp,$(1),$(2)): $(if $(wildcard $(TOOLS)/$(1)),,FORCE)
	@echo "installing $(1) $(2)"
	@env -u GOOS -u GOARCH GOBIN='$(CURDIR)/$(TOOLS)' go install $(3)@$(2)
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/$(1)-v* && touch $$@
endef

$(eval $(call tool,buf,$(BUF_VERSION),github.com/bufbuild/buf/cmd/buf))
$(eval $(call tool,protoc-gen-go-grpc,$(PROTOC_GEN_GO_GRPC_VERSION),google.golang.org/grpc/cmd/protoc-gen-go-grpc))
$(eval $(call tool,golangci-lint,$(GOLANGCI_LINT_VERSION),github.com/golangci/golangci-lint/v2/cmd/golangci-lint))
$(eval $(call tool,grpcurl,$(GRPCURL_VERSION),github.com/fullstorydev/grpcurl/cmd/grpcurl))
$(eval $(call tool,grpc-health-probe,$(GRPC_HEALTH_PROBE_VERSION),github.com/grpc-ecosystem/grpc-health-probe))
$(eval $(call tool,cyclonedx-gomod,$(CYCLONEDX_GOMOD_VERSION),github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod))
$(eval $(call tool,cosign,$(COSIGN_VERSION),github.com/sigstore/cosign/v3/cmd/cosign))
