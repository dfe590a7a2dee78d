// Command worker is a minimal flow worker. For each line on its standard input, a job, it calls an
// API with a connection as the platform has stored it, and prints the status that the API answers.
//
// CONNECTION holds the connection, for example
//
//	{"url": "https://api.example/orders", "account": "{{prod|ap_sep_v1|secret/data/shop/account}}",
//	 "token": "{{prod|ap_sep_v1|secret/data/shop/token}}"}
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/secret-sidecar/secret-sidecar/client"
)

func main() {
	if err := work(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func work(ctx context.Context) error {
	var stored map[string]string
	if err := json.Unmarshal([]byte(os.Getenv("CONNECTION")), &stored); err != nil {
		return fmt.Errorf("read CONNECTION: %w", err)
	}
	c, err := client.Open(ctx) // the socket is in SECRET_SIDECAR_SOCKET
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the process ends

	jobs := bufio.NewScanner(os.Stdin)
	for jobs.Scan() {
		status, err := run(ctx, c, stored, jobs.Text())
		if err != nil {
			return fmt.Errorf("run %s: %w", jobs.Text(), err)
		}
		fmt.Println(jobs.Text(), status)
	}
	return jobs.Err()
}

// run resolves the connection anew for each job, so that a rotated secret reaches it. A token that
// is rotated at this very moment is refused: Use then reads it from Vault and calls once more.
func run(ctx context.Context, c *client.Client, stored map[string]string, job string) (int, error) {
	resolved, err := c.ResolveObject(ctx, stored)
	if err != nil {
		return 0, err
	}
	connection := resolved.(map[string]string)
	answer, err := client.Use(ctx, c, stored["token"],
		func(ctx context.Context, token string) (*http.Response, error) {
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, connection["url"],
				strings.NewReader(job))
			if err != nil {
				return nil, err
			}
			request.Header.Set("Authorization", "Bearer "+token)
			request.Header.Set("X-Account", connection["account"])
			return http.DefaultClient.Do(request)
		})
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}
