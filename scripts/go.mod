module github.com/secret-sidecar/secret-sidecar/scripts

go 1.26.0

require (
	github.com/prometheus/client_model v0.6.3
	github.com/prometheus/common v0.72.0
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261104224025-d1e00e9f33ab // indirect
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	golang.org/x/text v0.42.0 // indirect
)

require (
	github.com/secret-sidecar/secret-sidecar v0.0.0
	github.com/secret-sidecar/secret-sidecar/gen v0.1.0
)

// The module is for work on this project alone: nobody else imports it.
replace (
	github.com/secret-sidecar/secret-sidecar => ../
	github.com/secret-sidecar/secret-sidecar/gen => ../gen
)
