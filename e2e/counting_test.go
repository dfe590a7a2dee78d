package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

const (
	fromVault = secretsidecarv1.Source_SOURCE_VAULT
	fromCache = secretsidecarv1.Source_SOURCE_CACHE
	stale     = secretsidecarv1.Source_SOURCE_STALE
)

// readVaultNow is a max_age that no copy in a cache satisfies.
var readVaultNow = durationpb.New(0)

// arrived counts the requests for a path in Vault's audit log.
func arrived(t *testing.T, v *vaulttest.Vault, operation, path string) int {
	t.Helper()
	n := 0
	for _, request := range v.Requests(t) {
		if request.Operation == operation && request.Path == path {
			n++
		}
	}
	return n
}

// requireReads compares the audit log's count of reads of a secret with the contract's.
func requireReads(t *testing.T, v *vaulttest.Vault, path string, want int) {
	t.Helper()
	if got := arrived(t, v, "read", path); got != want {
		t.Fatalf("%d reads of %s reached Vault, want %d", got, path, want)
	}
}

func TestTheAuditLogShowsOneReadForEverySecret(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.RealPrivate(t))

	t.Run("1000 concurrent requests for a cold secret cause 1 read, max_age 0s exactly 1 more",
		func(t *testing.T) {
			s := s.in(t)
			value := s.newSecret()
			s.writeSecret(s.vault, "secret/data/cold", "key", value)
			resolveTogether(t, s.sidecar, 1000,
				&secretsidecarv1.ResolveRequest{Path: "secret/data/cold/key"}, value)
			requireReads(t, s.vault, "secret/data/cold", 1)
			s.answer(&secretsidecarv1.ResolveRequest{Path: "secret/data/cold/key",
				MaxAge: readVaultNow},
				value, fromVault)
			requireReads(t, s.vault, "secret/data/cold", 2)
			s.value("secret/data/cold/key", value, fromCache)
			requireReads(t, s.vault, "secret/data/cold", 2)
		})

	t.Run("50 keys of one secret in a batch cause 1 read, with max_age 0s too, another key later none", func(t *testing.T) {
		s := s.in(t)
		data := map[string]any{}
		batch := &secretsidecarv1.BatchResolveRequest{}
		for i := range 50 {
			key := fmt.Sprintf("key-%d", i)
			data[key] = s.newSecret()
			batch.Requests = append(batch.Requests,
				&secretsidecarv1.ResolveRequest{Path: "secret/data/wide/" + key})
		}
		data["later"] = s.newSecret()
		s.vault.WriteSecret(t, "secret/data/wide", data)
		answer, err := s.BatchResolve(t.Context(), batch)
		if err != nil {
			t.Fatal(err)
		}
		for i, result := range answer.GetResults() {
			if want := data[fmt.Sprintf("key-%d", i)]; result.GetSecret().GetValue() != want {
				t.Errorf("result %d is %v", i, result)
			}
		}
		requireReads(t, s.vault, "secret/data/wide", 1)
		for _, request := range batch.GetRequests() {
			request.MaxAge = readVaultNow
		}
		if _, err := s.BatchResolve(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		requireReads(t, s.vault, "secret/data/wide", 2)
		s.value("secret/data/wide/later", data["later"].(string), fromCache)
		requireReads(t, s.vault, "secret/data/wide", 2)
	})

	t.Run("not found is remembered, but not for max_age 0s and not after Invalidate",
		func(t *testing.T) {
			s := s.in(t)
			const path = "secret/data/absent/key"
			notFound := failure{codes.NotFound, "SECRET_NOT_FOUND"}
			for range 3 {
				_, err := s.resolve(path)
				requireFailure(t, s, err, notFound)
			}
			requireReads(t, s.vault, "secret/data/absent", 1)
			_, err := s.Resolve(t.Context(),
				&secretsidecarv1.ResolveRequest{Path: path, MaxAge: readVaultNow})
			requireFailure(t, s, err, notFound)
			requireReads(t, s.vault, "secret/data/absent", 2)
			value := s.newSecret()
			s.writeSecret(s.vault, "secret/data/absent", "key", value)
			if _, err := s.Invalidate(t.Context(),
				&secretsidecarv1.InvalidateRequest{Path: path}); err != nil {
				t.Fatal(err)
			}
			s.value(path, value, fromVault)
		})

	t.Run("a rotated secret keeps its old value until Invalidate", func(t *testing.T) {
		s := s.in(t)
		const path = "secret/data/rotated/key"
		older, newer := s.newSecret(), s.newSecret()
		s.writeSecret(s.vault, "secret/data/rotated", "key", older)
		s.value(path, older, fromVault)
		s.writeSecret(s.vault, "secret/data/rotated", "key", newer)
		if answer := s.value(path, older, fromCache); answer.GetVersion() != 1 {
			t.Errorf("the old value has version %d", answer.GetVersion())
		}
		s.invalidate(path, 1)
		if answer := s.value(path, newer, fromVault); answer.GetVersion() != 2 {
			t.Errorf("the new value has version %d", answer.GetVersion())
		}
		s.answer(&secretsidecarv1.ResolveRequest{Path: path, Version: 1}, older, fromVault)
		requireReads(t, s.vault, "secret/data/rotated", 3)
		s.invalidate("secret/data/rotated/", 1)
	})

	t.Run("all of it took one login", func(t *testing.T) {
		if logins := arrived(t, s.vault, "update", loginPath); logins != 1 {
			t.Errorf("%d logins, want 1", logins)
		}
	})
}

// resolveTogether sends many requests at once, over several channels as many workers would.
func resolveTogether(t *testing.T, r *sidecar, count int, request *secretsidecarv1.ResolveRequest,
	want string) {
	t.Helper()
	const channels = 10
	start := make(chan struct{})
	var group sync.WaitGroup
	for range channels {
		client := secretsidecarv1.NewSecretServiceClient(r.sandbox.dial())
		for range count / channels {
			group.Go(func() {
				<-start
				answer, err := client.Resolve(t.Context(), request)
				if err != nil || answer.GetValue() != want {
					t.Errorf("resolve: %v, %v", answer, err)
				}
			})
		}
	}
	close(start)
	group.Wait()
}

func TestARequestAfterInvalidateNeverSeesAReadThatBeganBeforeIt(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSetup(t, v)
		for i := range 20 {
			older, newer := s.newSecret(), s.newSecret()
			s.writeSecret(v, "secret/data/fenced", "key", older)
			if _, err := s.Invalidate(t.Context(),
				&secretsidecarv1.InvalidateRequest{}); err != nil {
				t.Fatal(err)
			}
			answered, release := s.proxy.holdAnswers()
			var group sync.WaitGroup
			group.Go(func() { _, _ = s.resolve("secret/data/fenced/key") })
			<-answered
			s.writeSecret(v, "secret/data/fenced", "key", newer)
			if _, err := s.Invalidate(t.Context(),
				&secretsidecarv1.InvalidateRequest{}); err != nil {
				t.Fatal(err)
			}
			s.proxy.open()
			late := make(chan *secretsidecarv1.ResolveResponse, 1)
			group.Go(func() {
				answer, _ := s.resolve("secret/data/fenced/key")
				late <- answer
			})
			if i%2 == 0 { // the late request is answered first
				answer := <-late
				late <- answer
			}
			release()
			group.Wait()
			if answer := <-late; answer.GetValue() != newer {
				t.Fatalf("round %d: got %q, want %q", i, answer.GetValue(), newer)
			}
			s.value("secret/data/fenced/key", newer, fromCache)
		}
	})
}

func TestASecretInUseIsRefreshedBeforeItExpires(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.RealPrivate(t), "cache: {ttl: 12s, refresh_ahead: 5m}")
	older, newer := s.newSecret(), s.newSecret()
	s.writeSecret(s.vault, "secret/data/app", "key", older)
	s.value("secret/data/app/key", older, fromVault)
	s.writeSecret(s.vault, "secret/data/app", "key", newer)
	began := time.Now()
	eventually(t, "the new value comes by itself", func() bool {
		answer, err := s.resolve("secret/data/app/key")
		if err != nil || answer.GetSource() != fromCache {
			t.Fatalf("after %v: %v, %v; nobody but the first waits for Vault", time.Since(began),
				answer,
				err)
		}
		return answer.GetValue() == newer
	})
	requireReads(t, s.vault, "secret/data/app", 2)
}

func TestASecretIsNotServedOnceVaultHasDeletedItByItself(t *testing.T) {
	t.Parallel()
	for _, outage := range []bool{false, true} {
		t.Run(fmt.Sprintf("outage %v", outage), func(t *testing.T) {
			t.Parallel()
			s := newSetup(t, vaulttest.RealPrivate(t))
			s.asRoot(s.vault, http.MethodPost, "secret/metadata/passing",
				map[string]any{"delete_version_after": "6s"})
			value := s.newSecret()
			s.writeSecret(s.vault, "secret/data/passing", "key", value)
			end := s.value("secret/data/passing/key", value, fromVault).GetExpiresAt().AsTime()
			if outage {
				s.proxy.cut()
			}
			var served int
			var err error
			eventually(t, "it is gone", func() bool {
				asked := time.Now()
				var answer *secretsidecarv1.ResolveResponse
				if answer, err = s.resolve("secret/data/passing/key"); err != nil {
					return true
				}
				if served++; answer.GetSource() != fromVault && asked.After(end) {
					t.Errorf("a copy answered %v after its end", asked.Sub(end))
				}
				return false
			})
			want := failure{codes.NotFound, "VERSION_DELETED"}
			if outage {
				want = unreachable
			}
			requireFailure(t, s, err, want)
			if served == 0 {
				t.Error("no copy was served before that")
			}
		})
	}
}

func TestThreeMegabytesFitIntoAnAnswer(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t))
	value := strings.Repeat("0123456789abcdef", 1_000_000/16) // Vault takes strings of up to 1 MiB
	data := map[string]any{}
	batch := &secretsidecarv1.BatchResolveRequest{}
	for _, key := range []string{"one", "two", "three"} {
		data[key] = value
		batch.Requests = append(batch.Requests,
			&secretsidecarv1.ResolveRequest{Path: "secret/data/large/" + key})
	}
	s.vault.WriteSecret(t, "secret/data/large", data)
	answer, err := s.BatchResolve(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range answer.GetResults() {
		if result.GetSecret().GetValue() != value {
			t.Errorf("result %d has %d bytes and the error %v", i,
				len(result.GetSecret().GetValue()),
				result.GetError())
		}
	}
}

func TestAnswersSayHowLongTheyAreFresh(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t), "cache: {ttl: 10m}")
	answer := s.value("secret/data/app/key", s.secret, fromVault)
	life := answer.GetExpiresAt().AsTime().Sub(answer.GetFetchedAt().AsTime())
	if life > 10*time.Minute || life < 9*time.Minute {
		t.Errorf("a copy with a ttl of 10m is fresh for %v, want 9m to 10m", life)
	}
}
