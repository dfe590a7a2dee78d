package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// proxiedAddress makes TestMain's process a client that asks a Vault at this address, and prints
// what to do about it.
const proxiedAddress = "VAULT_TEST_PROXIED_ADDRESS"

// askThroughTheProxy is what such a process does: the environment's proxies are read once in a
// process.
func askThroughTheProxy(address string) {
	c, err := New(Config{Endpoint: Endpoint{Address: address}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = c.Health(ctx)
	if call, ok := errors.AsType[*CallError](err); ok {
		fmt.Printf("%v: %s", call, call.Remedy)
	}
}

func TestAProxyOfTheEnvironmentThatRefusesIsNamed(t *testing.T) {
	for _, address := range []string{"https://vault.example:8200", "http://vault.example:8200"} {
		for status, advice := range map[int]string{407: "credentials", 403: "NO_PROXY",
			502: "reach"} {
			t.Run(fmt.Sprint(address, " ", status), func(t *testing.T) {
				proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
					_ *http.Request) {
					w.Header().Set("Content-Type", "text/html")
					w.WriteHeader(status)
					_, _ = w.Write([]byte("<html>the proxy's page</html>"))
				}))
				defer proxy.Close()
				said := askInAnotherProcess(t, address, proxy.URL)
				for _, want := range []string{"cannot be reached",
					strings.TrimPrefix(proxy.URL, "http://"), fmt.Sprint(status), advice} {
					if !strings.Contains(said, want) {
						t.Errorf("it says %q, without %q", said, want)
					}
				}
			})
		}
	}
}

func TestAProxyOfTheEnvironmentThatIsAwayIsNamed(t *testing.T) {
	proxy := httptest.NewServer(http.NotFoundHandler())
	proxy.Close()
	for _, address := range []string{"https://vault.example:8200", "http://vault.example:8200"} {
		said := askInAnotherProcess(t, address, proxy.URL)
		if !strings.Contains(said, strings.TrimPrefix(proxy.URL, "http://")) ||
			!strings.Contains(said, "HTTPS_PROXY") {
			t.Errorf("%s: it says %q", address, said)
		}
	}
}

// askInAnotherProcess returns what a client says that has the proxy in its environment.
func askInAnotherProcess(t *testing.T, address, proxy string) string {
	t.Helper()
	client := exec.CommandContext(t.Context(), os.Args[0])
	client.Env = append(os.Environ(), proxiedAddress+"="+address, "HTTPS_PROXY="+proxy,
		"HTTP_PROXY="+proxy, "NO_PROXY=", "https_proxy=", "http_proxy=", "no_proxy=")
	said, err := client.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return string(said)
}
