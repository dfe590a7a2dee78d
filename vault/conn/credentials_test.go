package conn

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// cannotBeRight are contents of a credential file that Vault would reject.
var cannotBeRight = map[string]string{
	"two lines": "hush\nhush\n", "UTF-16": "\xff\xfeh\x00", "100 KiB": strings.Repeat("x", 100<<10), "a control character": "hush\x00",
	"Latin-1": "hush\xe9",
}

func TestAFileThatCannotBeRightKeepsTheOldCredentialsAndAsksNobody(t *testing.T) {
	for name, content := range cannotBeRight {
		inBubble(t, func(t *testing.T, w *world) {
			r := newRotation(t, w)
			r.rotate(content)
			mustRead(t, r.c)
			s := r.c.Status()
			if s.State != StateReady || !s.TokenValid || !errors.Is(s.LastError, vault.ErrLoginPending) || !strings.Contains(remedy(s.LastError), r.file) {
				t.Errorf("%s: status %+v", name, s)
			}
			time.Sleep(3 * time.Hour) // three tokens' lives
			mustRead(t, r.c)
			if rejected := r.c.login.State().Problem; errors.Is(rejected, vault.ErrLoginRejected) {
				t.Errorf("%s: Vault was asked: %v", name, rejected)
			}
			r.rotate("\ufeff" + w.secretID() + "\r\n")
			if s := r.c.Status(); s.State != StateReady || s.LastError != nil {
				t.Errorf("%s: status after a good one: %+v", name, s)
			}
		})
	}
}

func TestAFileThatCannotBeRightAtTheStartIsNoLogin(t *testing.T) {
	for name, content := range cannotBeRight {
		inBubble(t, func(t *testing.T, w *world) {
			cfg := w.role(anHour)
			good := cfg.SecretID.Value.Reveal()
			r := &rotation{world: w, file: filepath.Join(t.TempDir(), "secret_id")}
			r.write(content)
			cfg.SecretID = login.Credential{File: r.file}
			cfg.watch = func(ctx context.Context, changed func()) {
				r.tell = changed
				<-ctx.Done()
			}
			r.c = w.open(cfg)
			synctest.Wait()
			time.Sleep(time.Hour)
			_, err := r.c.Read(t.Context(), "secret/data/app", 0)
			wantErr(t, err, vault.ErrLoginPending)
			if s := r.c.Status(); s.State != StateConnecting || !strings.Contains(remedy(s.LastError), r.file) || w.count(loginCall) != 0 {
				t.Errorf("%s: %d logins, status %+v", name, w.count(loginCall), s)
			}
			r.rotate(good)
			mustRead(t, r.c)
		})
	}
}

func TestAFileThatIsEmptyFirstAndMalformedThenIsSaidTwice(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		r.rotate("")
		r.rotate("hush\nhush")
		r.tell()
		synctest.Wait()
		if n := strings.Count(w.logs.String(), "cannot read the Vault credentials"); n != 2 || strings.Contains(w.logs.String(), "hush") {
			t.Errorf("said %d times: %s", n, w.logs.String())
		}
	})
}

func TestALiteralThatCannotBeRightIsAMistake(t *testing.T) {
	for setting, cfg := range map[string]Config{
		"role_id":   {Settings: literal("http://v", "hush\nhush", "")},
		"secret_id": {Settings: literal("http://v", "r", "/run/hush")},
	} {
		c, err := Open(cfg)
		if err == nil {
			_ = c.Close(t.Context())
		}
		if err == nil || !strings.HasPrefix(err.Error(), setting+" holds ") || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", setting, err)
		}
	}
}
