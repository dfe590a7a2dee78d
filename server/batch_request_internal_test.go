package server

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

func TestABatchOfTooManyRequestsIsNotDecodedWhole(t *testing.T) {
	empty := bytes.Repeat([]byte{requestsField<<3 | 2, 0}, maxRequestBytes/2)
	for name, message := range map[string]interface {
		GetRequests() []*secretsidecarv1.ResolveRequest
	}{
		"BatchResolve": &secretsidecarv1.BatchResolveRequest{}, "Watch": &secretsidecarv1.WatchRequest{},
	} {
		if err := newAnswerCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(empty)}, message); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(message.GetRequests()); n != maxBatch+1 {
			t.Errorf("%s: %d requests are decoded, want %d", name, n, maxBatch+1)
		}
	}
}

func TestWhatIsNoBatchIsDecodedAsItIs(t *testing.T) {
	var batch secretsidecarv1.BatchResolveRequest
	for _, broken := range [][]byte{{0x0a}, {0x0a, 5, 1}, {0xff, 0xff, 0xff}} {
		if err := newAnswerCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(broken)}, &batch); err == nil {
			t.Errorf("%x is decoded", broken)
		}
	}
}
