package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/client"
	"github.com/secret-sidecar/secret-sidecar/client/clienttest"
)

func TestUseCallsOnceMoreWithASecretThatHasChanged(t *testing.T) {
	c, sidecar := clienttest.New(t, map[string]string{reference: "old"})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "new" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "welcome")
	}))
	defer service.Close()
	calls := 0
	response, err := client.Use(t.Context(), c, reference,
		func(ctx context.Context, value string) (*http.Response, error) {
			calls++
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, service.URL,
				http.NoBody)
			if err != nil {
				return nil, err
			}
			request.Header.Set("Authorization", value)
			sidecar.Set(reference, "new") // the secret is rotated while the first call is under way
			return service.Client().Do(request)
		})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || calls != 2 {
		t.Errorf("status %d after %d calls", response.StatusCode, calls)
	}
}

func TestUseGivesTheRefusalBackWhenTheSecretHasNotChanged(t *testing.T) {
	c, _ := clienttest.New(t, map[string]string{reference: "old"})
	calls := 0
	_, err := client.Use(t.Context(), c, reference, func(context.Context, string) (int, error) {
		calls++
		return 0, fmt.Errorf("log in: %w", client.ErrRefused)
	})
	if !errors.Is(err, client.ErrRefused) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestUseGivesEveryOtherErrorBackAtOnce(t *testing.T) {
	c, sidecar := clienttest.New(t, map[string]string{reference: "old"})
	broken := errors.New("broken")
	_, err := client.Use(t.Context(), c, reference, func(context.Context, string) (int, error) {
		return 0, broken
	})
	if !errors.Is(err, broken) || sidecar.Asked(reference) != 1 {
		t.Errorf("%v after %d reads", err, sidecar.Asked(reference))
	}
	_, err = client.Use(t.Context(), c, "secret/data/x/missing",
		func(context.Context, string) (int, error) {
			t.Error("it was called without a value")
			return 0, nil
		})
	if !errors.Is(err, client.ErrSecretNotFound) {
		t.Errorf("without a value: %v", err)
	}
}
