package conn

import (
	"net/http"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

func TestStatusesAndBodiesThatAreOutages(t *testing.T) {
	html := http.Header{"Content-Type": {"text/html"}}
	for name, test := range map[string]struct {
		status int
		body   string
		header http.Header
		want   error
	}{
		"HTML with 200":             {200, "<html></html>", html, vault.ErrUnreachable},
		"HTML with 403":             {403, "<html></html>", html, vault.ErrUnreachable},
		"HTML with 404":             {404, "<html></html>", html, vault.ErrUnreachable},
		"HTML with 503":             {503, "<html></html>", html, vault.ErrUnreachable},
		"sealed":                    {503, `{"errors":["Vault is sealed"]}`, nil, vault.ErrSealed},
		"503 without a body":        {503, ``, nil, vault.ErrUnreachable},
		"a quota":                   {429, `{"errors":["request path \"x\": rate limit quota exceeded"]}`, nil, vault.ErrRateLimited},
		"429 of a proxy":            {429, `slow down`, nil, vault.ErrRateLimited},
		"500":                       {500, `{"errors":["internal error"]}`, nil, vault.ErrUnreachable},
		"502":                       {502, ``, nil, vault.ErrUnreachable},
		"a replication secondary":   {472, `{}`, nil, vault.ErrUnreachable},
		"a performance standby":     {473, `{}`, nil, vault.ErrUnreachable},
		"a redirect":                {307, ``, http.Header{"Location": {"https://elsewhere/"}}, vault.ErrUnreachable},
		"trailing garbage":          {200, `{"data":null} {"x"`, nil, vault.ErrUnreachable},
		"a truncated body":          {200, `{"data":{"data":{"a":`, nil, vault.ErrUnreachable},
		"an empty 200":              {200, ``, nil, vault.ErrUnreachable},
		"a JSON list":               {200, `[]`, nil, vault.ErrUnreachable},
		"a 404 in plain text":       {404, `404 page not found`, nil, vault.ErrUnreachable},
		"a mount that is upgrading": {400, `{"errors":["Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly."]}`, nil, vault.ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				c := w.open(w.role(anHour))
				mustRead(t, c)
				w.breakWith(status(test.status, test.body, test.header))
				_, err := c.Read(t.Context(), "secret/data/app", 0)
				wantErr(t, err, test.want)
				if remedy(err) == "" || c.Status().State != StateDegraded {
					t.Errorf("remedy %q, status %+v", remedy(err), c.Status())
				}
				w.forget()
				_, err = c.Read(t.Context(), "secret/data/app", 0)
				if wantErr(t, err, test.want); w.total() != 0 {
					t.Errorf("%d more calls at once", w.total())
				}
				w.breakWith(nil)
			})
		})
	}
}

func TestPlainNotFoundAsksOnceWhoseMountItIs(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do("POST", "sys/mounts/kv1", `{"type":"kv","options":{"version":"1"}}`)
		w.do("PUT", "sys/policies/acl/app", `{"policy":"path \"secret/*\" {capabilities=[\"read\"]} path \"kv1/*\" {capabilities=[\"read\"]}"}`)
		c := w.open(w.role(anHour))
		for range 5 {
			_, err := c.Read(t.Context(), "kv1/data/missing", 0)
			wantErr(t, err, vault.ErrNotKVv2)
			_, err = c.Read(t.Context(), "secret/data/missing", 0)
			wantErr(t, err, vault.ErrNotFound)
			_, err = c.Read(t.Context(), "secret/data/other", 0)
			wantErr(t, err, vault.ErrNotFound)
		}
		asked := w.count("GET sys/internal/ui/mounts/kv1/data/missing") + w.count("GET sys/internal/ui/mounts/secret/data/missing") +
			w.count("GET sys/internal/ui/mounts/secret/data/other")
		if asked != 1+5 {
			t.Errorf("asked %d times, want once for the mount of version 2, and each time for the other: it may be upgraded", asked)
		}
	})
}
