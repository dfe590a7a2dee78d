module github.com/secret-sidecar/secret-sidecar/scripts

go 1.26.0

require (
	github.com/prometheus/client_model v0.6.3
	github.com/prometheus/common v0.73.1
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261110000943-09e21b237f2c // indirect
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/cyphar/filepath-securejoin v0.7.0 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/pandatix/go-abnf v0.5.3 // indirect
	github.com/sergi/go-diff v1.4.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

require (
	github.com/google/licenseclassifier v0.0.0-20260218193730-3cfbab2d0e0d
	github.com/secret-sidecar/secret-sidecar v0.0.0
	github.com/secret-sidecar/secret-sidecar/gen v0.1.0
	go.elastic.co/go-licence-detector v0.11.1
)

// The module is for work on this project alone: nobody else imports it.
replace (
	github.com/secret-sidecar/secret-sidecar => ../
	github.com/secret-sidecar/secret-sidecar/gen => ../gen
)
