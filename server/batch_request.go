package server

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// requestsField is the number of `requests` in BatchResolveRequest and WatchRequest.
const requestsField = 1

// Unmarshal implements encoding.CodecV2. Of a batch it decodes no more requests than tell that there
// are too many: an empty one takes two bytes on the wire, and more than a hundred in memory.
func (c answerCodec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v.(type) {
	case *secretsidecarv1.BatchResolveRequest, *secretsidecarv1.WatchRequest:
	default:
		return c.CodecV2.Unmarshal(data, v)
	}
	text := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer text.Free()
	few := mem.SliceBuffer(beginningOf(text.ReadOnlyData(), maxBatch+1))
	return c.CodecV2.Unmarshal(mem.BufferSlice{few}, v)
}

// beginningOf returns the message up to the end of its last request that counts. What is no protobuf
// is left to the decoder.
func beginningOf(message []byte, most int) []byte {
	for at, found := 0, 0; at < len(message); {
		number, _, length := protowire.ConsumeField(message[at:])
		if length < 0 {
			return message
		}
		at += length
		if number != requestsField {
			continue
		}
		if found++; found == most {
			return message[:at]
		}
	}
	return message
}
