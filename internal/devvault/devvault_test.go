package devvault_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
)

// do sends a request without a network and returns the status and the body.
func do(v http.Handler, token, method, path, body string) (int, map[string]any) {
	request := httptest.NewRequest(method, "/v1/"+path, strings.NewReader(body))
	request.Header.Set("X-Vault-Token", token)
	recorder := httptest.NewRecorder()
	v.ServeHTTP(recorder, request)
	text, _ := io.ReadAll(recorder.Body)
	var answer map[string]any
	json.Unmarshal(text, &answer) //nolint:errcheck // an empty body is no object
	return recorder.Code, answer
}

func logIn(v http.Handler, roleID, secretID string) (status int, token string) {
	status, answer := do(v, "", http.MethodPost, "auth/approle/login",
		`{"role_id":"`+roleID+`","secret_id":"`+secretID+`"}`)
	auth, _ := answer["auth"].(map[string]any)
	token, _ = auth["client_token"].(string)
	return status, token
}

func setUp(t *testing.T, v *devvault.Vault) (roleID, secretID string) {
	t.Helper()
	roleID, secretID, err := v.SetupAppRole("app",
		`path "secret/data/*" { capabilities = ["read"] }`)
	if err != nil {
		t.Fatal(err)
	}
	return roleID, secretID
}

func TestSetupAppRoleAndWriteSecretMakeAVaultReadyToUse(t *testing.T) {
	v := devvault.New(devvault.Options{})
	roleID, secretID := setUp(t, v)
	if err := v.WriteSecret("mysec", map[string]any{"api_key": "s3cr3t"}); err != nil {
		t.Fatal(err)
	}
	_, token := logIn(v, roleID, secretID)
	status, answer := do(v, token, http.MethodGet, "secret/data/mysec", "")
	data, _ := answer["data"].(map[string]any)
	if inner, _ := data["data"].(map[string]any); status != http.StatusOK ||
		inner["api_key"] != "s3cr3t" {
		t.Errorf("read: status %d: %v", status, answer)
	}
	again, _ := setUp(t, v)
	if again != roleID {
		t.Error("setting the role up again changed its role ID")
	}
	if status, _ := logIn(v, roleID, secretID); status != http.StatusOK {
		t.Errorf("login with the first secret ID after setting the role up again: status %d",
			status)
	}
}

func TestSetupAppRoleRefusesAPolicyItCannotRead(t *testing.T) {
	v := devvault.New(devvault.Options{})
	if _, _, err := v.SetupAppRole("app", `path "x" { capabilities = ["fly"] }`); err == nil {
		t.Error("no error for an unknown capability")
	}
	if _, _, err := v.SetupAppRole("app", `path "x" { min_wrapping_ttl = "1s" }`); err == nil {
		t.Error("no error for a parameter outside the subset")
	}
}

func TestWriteSecretNeedsKV2AtSecret(t *testing.T) {
	v := devvault.New(devvault.Options{})
	do(v, v.RootToken(), http.MethodDelete, "sys/mounts/secret", "")
	if err := v.WriteSecret("x", nil); err == nil {
		t.Error("no error without a mount")
	}
	do(v, v.RootToken(), http.MethodPost, "sys/mounts/secret", `{"type":"kv"}`)
	if err := v.WriteSecret("x", nil); err == nil {
		t.Error("no error with KV version 1")
	}
}

func TestRootTokenIsTheOneAskedForOrRandom(t *testing.T) {
	if got := devvault.New(devvault.Options{RootToken: "mine"}).RootToken(); got != "mine" {
		t.Errorf("root token = %q, want mine", got)
	}
	a, b := devvault.New(devvault.Options{}).RootToken(),
		devvault.New(devvault.Options{}).RootToken()
	if a == b || len(a) < 20 {
		t.Errorf("root tokens %q and %q are not random", a, b)
	}
}

func TestOnRequestHearsWhatVaultWouldAudit(t *testing.T) {
	var heard []devvault.Request
	v := devvault.New(devvault.Options{OnRequest: func(r devvault.Request) {
		heard = append(heard, r)
	}})
	do(v, "", http.MethodGet, "sys/health", "")
	do(v, v.RootToken(), http.MethodPost, "secret/data/a", `{"data":{}}`)
	do(v, v.RootToken(), http.MethodPost, "secret/data/a", `{"data":{}}`)
	do(v, "garbage", http.MethodGet, "secret/data/a", "")
	v.SetSealed(true)
	do(v, v.RootToken(), http.MethodGet, "secret/data/a", "")
	want := []devvault.Request{
		{Operation: "create", Path: "secret/data/a", Root: true},
		{Operation: "update", Path: "secret/data/a", Root: true},
		{Operation: "read", Path: "secret/data/a"},
	}
	if len(heard) != len(want) {
		t.Fatalf("heard %v, want %v", heard, want)
	}
	for i := range want {
		if heard[i] != want[i] {
			t.Errorf("request %d = %v, want %v", i, heard[i], want[i])
		}
	}
}

func TestOnRequestMayBlockWithoutBlockingOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held, release := make(chan struct{}), make(chan struct{})
		v := devvault.New(devvault.Options{OnRequest: func(r devvault.Request) {
			if r.Path == "secret/data/slow" {
				close(held)
				<-release
			}
		}})
		answered := make(chan int)
		go func() {
			status, _ := do(v, v.RootToken(), http.MethodGet, "secret/data/slow", "")
			answered <- status
		}()
		<-held
		if status, _ := do(v, v.RootToken(), http.MethodGet, "secret/data/other",
			""); status != http.StatusNotFound {
			t.Errorf("another request meanwhile: status %d, want 404", status)
		}
		close(release)
		if status := <-answered; status != http.StatusNotFound {
			t.Errorf("the slow request: status %d, want 404", status)
		}
	})
}

func TestLockoutEndsAfterFifteenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := devvault.New(devvault.Options{})
		roleID, secretID := setUp(t, v)
		for range 5 {
			logIn(v, roleID, "wrong")
		}
		time.Sleep(15*time.Minute - time.Second)
		if status, _ := logIn(v, roleID, secretID); status != http.StatusForbidden {
			t.Errorf("just before: status %d, want 403", status)
		}
		time.Sleep(time.Second)
		if status, _ := logIn(v, roleID, secretID); status != http.StatusOK {
			t.Errorf("after 15 minutes: status %d, want 200", status)
		}
	})
}

func TestRejectedLoginsAreForgottenAfterFifteenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := devvault.New(devvault.Options{})
		roleID, secretID := setUp(t, v)
		for range 2 {
			for range 4 {
				logIn(v, roleID, "wrong")
			}
			time.Sleep(15 * time.Minute)
		}
		if status, _ := logIn(v, roleID, secretID); status != http.StatusOK {
			t.Errorf("status %d, want 200", status)
		}
	})
}

func TestSecretIDExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := devvault.New(devvault.Options{})
		roleID, _ := setUp(t, v)
		_, answer := do(v, v.RootToken(), http.MethodPost, "auth/approle/role/app/secret-id",
			`{"ttl":"1h"}`)
		secretID := answer["data"].(map[string]any)["secret_id"].(string)
		time.Sleep(time.Hour - time.Second)
		if status, _ := logIn(v, roleID, secretID); status != http.StatusOK {
			t.Errorf("before: status %d, want 200", status)
		}
		time.Sleep(time.Second)
		if status, _ := logIn(v, roleID, secretID); status != http.StatusBadRequest {
			t.Errorf("after: status %d, want 400", status)
		}
	})
}

func TestExpiredTokensAreNotKeptForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := devvault.New(devvault.Options{})
		roleID, secretID := setUp(t, v)
		for range 2000 {
			logIn(v, roleID, secretID)
			time.Sleep(10 * time.Minute)
		}
		_, answer := do(v, v.RootToken(), "LIST", "auth/token/accessors", "")
		if keys := answer["data"].(map[string]any)["keys"].([]any); len(keys) > 1100 {
			t.Errorf("%d tokens are kept of the 7 that live", len(keys))
		}
	})
}

func TestRequestBodyIsBounded(t *testing.T) {
	v := devvault.New(devvault.Options{})
	body := strings.Repeat(" ", 33<<20)
	if status, _ := do(v, v.RootToken(), http.MethodPost, "secret/data/a",
		body); status != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, want 413", status)
	}
}
