package conn

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

func TestATestOfAnAddressThatIsNotAllowedSendsNothing(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer server.Close()
	config := func(address, allowed string) Config {
		return Config{Settings: literal(address, "r", ""), Options: vault.Options{AllowedHosts: []string{allowed}}}
	}
	if _, err := TestConfig(t.Context(), config(server.URL, "10.0.0.0/8"), nil); !errors.Is(err, vault.ErrAddressNotAllowed) {
		t.Errorf("an address that is not allowed: %v", err)
	}
	byName := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	report, err := TestConfig(t.Context(), config(byName, "10.0.0.0/8"), nil)
	if err != nil || report.OK() || !strings.Contains(report.Checks[0].Remedy, "test_connection.allow") {
		t.Errorf("a name that resolves to an address that is not allowed: %+v, %v", report, err)
	}
	if asked != 0 {
		t.Errorf("the server was asked %d times", asked)
	}
	if _, err := TestConfig(t.Context(), config(server.URL, "127.0.0.0/8"), nil); err != nil || asked == 0 {
		t.Errorf("an address that is allowed: %v, asked %d times", err, asked)
	}
}
