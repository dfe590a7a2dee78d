package e2e_test

import (
	"os"
	"testing"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// The secret_id is rotated by file in every way that people and tools do it, under load. Not one
// request fails.

func TestASecretIDIsRotatedByFileUnderLoadWithNoFailedRequest(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{withProxy: true})
	kubernetes := r.newVolume("kubernetes")
	swap := func(content string) { kubernetes.swap(map[string]string{"secret_id": content}) }
	swap(r.login.secretID)
	file := kubernetes.file("secret_id")
	r.lines = append(r.lines, "secret_id_file: "+file)
	r.begin()
	inPlace := func(content string) { r.must(os.WriteFile(file, []byte(content), 0o600)) }
	rename := func(content string) {
		r.must(os.WriteFile(file+".new", []byte(content), 0o600))
		r.must(os.Rename(file+".new", file))
	}

	current := r.login.secretID
	rotate := func(how string, replace func(content string)) {
		t.Helper()
		next, logins := r.login.newSecretID(), r.proxy.count(loginPath)
		replace(next + "\n")
		eventually(t, how+" leads to one login", func() bool {
			return r.proxy.count(loginPath) > logins
		})
		eventually(t, how+" leaves the connection READY", func() bool {
			one := r.sidecar.status("prod")
			return one.GetState() == secretsidecarv1.ConnectionState_CONNECTION_STATE_READY &&
				one.GetLastError() == nil
		})
		r.login.destroySecretID(current)
		current = next
		r.must(r.sidecar.renewLogin()) // with the new one: the old one is worth nothing any more
	}
	bad := func(how, content string, noticed func(*secretsidecarv1.ConnectionStatus) bool) {
		t.Helper()
		inPlace(content)
		eventually(t, how+" is reported", func() bool { return noticed(r.sidecar.status("prod")) })
	}

	rotate("a swap of Kubernetes' links", swap)
	rotate("another swap of Kubernetes' links", swap)
	rotate("an atomic rename", rename)
	rotate("another atomic rename", rename)
	rotate("a write in place", inPlace)
	bad("an empty file", "", func(one *secretsidecarv1.ConnectionStatus) bool {
		return one.GetState() == secretsidecarv1.ConnectionState_CONNECTION_STATE_READY &&
			one.GetLastError().GetReason() == "LOGIN_PENDING"
	})
	rotate("a write after an empty file", inPlace)
	bad("wrong content", r.newSecret(), func(one *secretsidecarv1.ConnectionStatus) bool {
		return one.GetState() == secretsidecarv1.ConnectionState_CONNECTION_STATE_REJECTED &&
			one.GetLastError().GetReason() == "LOGIN_REJECTED"
	})
	bad("an empty file after wrong content", "", func(one *secretsidecarv1.ConnectionStatus) bool {
		return one.GetState() == secretsidecarv1.ConnectionState_CONNECTION_STATE_REJECTED
	})
	rotate("a write after wrong content", inPlace)
	r.must(os.Remove(file))
	rotate("a file that was gone", rename)

	r.load.meets("prod VAULT", "prod CACHE")
}

// renewLogin asks for a new login of prod and returns what came of it. It drops no secret.
func (r *sidecar) renewLogin() error {
	_, err := r.Invalidate(r.sandbox.t.Context(), &secretsidecarv1.InvalidateRequest{
		Connection: "prod", Path: "secret/data/none/key", RenewLogin: true,
	})
	return err
}

// status returns the status of one connection.
func (r *sidecar) status(name string) *secretsidecarv1.ConnectionStatus {
	r.sandbox.t.Helper()
	list, err := r.ListConnections(r.sandbox.t.Context(), &secretsidecarv1.ListConnectionsRequest{})
	if err != nil {
		r.sandbox.t.Fatalf("list connections: %v", err)
	}
	for _, one := range list.GetConnections() {
		if one.GetName() == name {
			return one
		}
	}
	r.sandbox.t.Fatalf("there is no connection %q in %v", name, list)
	return nil
}
