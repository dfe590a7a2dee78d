package vaulttest

import (
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Kubernetes is a stub of a cluster's API server: it makes tokens of service accounts, and confirms
// them as a TokenReview does. It is safe for concurrent use.
type Kubernetes struct {
	// Host is its address, and CA its certificate in PEM format.
	Host, CA string

	issuer *Issuer
	mu     sync.Mutex
	tokens map[string]Claims // those that are good; guarded by mu
	down   bool              // guarded by mu
	asked  int               // guarded by mu
}

// NewKubernetes starts a stub, which ends with the test.
func NewKubernetes(t testing.TB) *Kubernetes {
	t.Helper()
	k := &Kubernetes{issuer: NewIssuer(t), tokens: make(map[string]Claims)}
	server := httptest.NewTLSServer(http.HandlerFunc(k.review))
	t.Cleanup(server.Close)
	k.Host = server.URL
	k.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	return k
}

// Token makes a token of a service account, for the audience "vault" unless the claims say
// something else.
func (k *Kubernetes) Token(t testing.TB, namespace, account string, changed Claims) string {
	t.Helper()
	now := time.Now()
	claims := Claims{"iss": "https://kubernetes.default.svc", "aud": []string{"vault"},
		"sub": "system:serviceaccount:" + namespace + ":" + account, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": Claims{"namespace": namespace,
			"serviceaccount": Claims{"name": account, "uid": "uid-of-" + account}}}
	token := k.issuer.sign(t, claims, changed)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tokens[token] = maps.Clone(claims)
	return token
}

// Revoke makes a token worthless, as the end of its pod does.
func (k *Kubernetes) Revoke(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.tokens, token)
}

// SetDown makes the stub answer 503 to everything, or not any more.
func (k *Kubernetes) SetDown(down bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = down
}

// Reviews is how many tokens it was asked about.
func (k *Kubernetes) Reviews() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

func (k *Kubernetes) review(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Spec struct {
			Token     string
			Audiences []string
		}
	}
	isReview := strings.HasSuffix(r.URL.Path, "/tokenreviews")
	if json.NewDecoder(r.Body).Decode(&asked) != nil || !isReview {
		http.NotFound(w, r)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	if k.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{ //nolint:errcheck // a client that left needs no answer
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
		"status": statusOf(k.tokens[asked.Spec.Token], asked.Spec.Audiences)})
}

// statusOf is the status of a review: no claims are those of a token that is not known.
func statusOf(claims Claims, audiences []string) map[string]any {
	if claims == nil {
		return map[string]any{"authenticated": false, "error": "invalid bearer token"}
	}
	own, _ := claims["aud"].([]string)
	both := slices.DeleteFunc(slices.Clone(audiences), func(one string) bool {
		return !slices.Contains(own, one)
	})
	kubernetes, _ := claims["kubernetes.io"].(Claims)
	account, _ := kubernetes["serviceaccount"].(Claims)
	return map[string]any{"authenticated": len(both) > 0, "audiences": both,
		"user": map[string]any{"username": claims["sub"], "uid": account["uid"]}}
}
