package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/secret-sidecar/secret-sidecar/client"
)

func Example() {
	ctx := context.Background()
	c, err := client.Open(ctx) // the socket is in SECRET_SIDECAR_SOCKET
	if err != nil {
		panic(err)
	}
	defer c.Close() //nolint:errcheck // the process ends

	key, err := c.Get(ctx, "secret/data/mysec/api_key", client.Connection("prod"))
	switch {
	case errors.Is(err, client.ErrSecretNotFound):
		fmt.Println("there is no such secret")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(len(key))
	}
}

func ExampleClient_ResolveObject() {
	ctx := context.Background()
	c, err := client.Open(ctx)
	if err != nil {
		panic(err)
	}
	defer c.Close() //nolint:errcheck // the process ends

	connection := map[string]any{
		"user":     "alice",
		"password": "{{prod|ap_sep_v1|secret/data/smtp/password}}",
	}
	resolved, err := c.ResolveObject(ctx, connection, client.Project("p1"))
	if err != nil {
		panic(err)
	}
	fmt.Println(len(resolved.(map[string]any)["password"].(string)))
}

func ExampleUse() {
	ctx := context.Background()
	c, err := client.Open(ctx)
	if err != nil {
		panic(err)
	}
	defer c.Close() //nolint:errcheck // the process ends

	// A 401 makes Use ask for a fresh value, and call once more if the secret was rotated.
	response, err := client.Use(ctx, c, "secret/data/mysec/api_key",
		func(ctx context.Context, key string) (*http.Response, error) {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet,
				"https://api.example/v1/orders", http.NoBody)
			if err != nil {
				return nil, err
			}
			request.Header.Set("Authorization", "Bearer "+key)
			return http.DefaultClient.Do(request)
		}, client.Connection("prod"))
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	fmt.Println(response.Status)
}
