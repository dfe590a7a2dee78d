package e2e_test

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
)

// rawMessage is a message as bytes, for what no generated client would send.
type rawMessage []byte

// rawCodec sends and receives rawMessages. It calls itself proto, as what it carries claims to be.
func rawCodec() grpc.CallOption { return grpc.ForceCodec(codecOfBytes{}) }

type codecOfBytes struct{}

var _ encoding.Codec = codecOfBytes{}

func (codecOfBytes) Marshal(v any) ([]byte, error) { return v.(rawMessage), nil }

func (codecOfBytes) Unmarshal(data []byte, v any) error {
	*v.(*rawMessage) = data
	return nil
}

func (codecOfBytes) Name() string { return "proto" }
