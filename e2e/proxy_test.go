package e2e_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// proxy is an HTTP proxy before a Vault. It records the requests, so that a test can count them. It
// can drop requests, hold them, or answer them itself. It is safe for concurrent use.
type proxy struct {
	address string
	sandbox *sandbox
	forward *httputil.ReverseProxy
	server  *httptest.Server

	mu      sync.Mutex
	passed  []passage // guarded by mu
	lookups int       // guarded by mu: see ownLookup
	tokens  []grant   // guarded by mu: in the order granted
	// guarded by mu: nil, or a nil answer, lets a request through
	override func(path string) http.HandlerFunc
}

// ownLookup is the request by which the sidecar asks when its secret_id ends. It sends it some time
// after a login while it exports metrics, as it does in nearly every test. It is counted apart,
// because no test causes it.
var ownLookup = regexp.MustCompile(`^auth/approle/role/e2e-[a-z0-9]+/secret-id/lookup$`)

// passage is one request that reached the proxy.
type passage struct {
	method, path string // the path is what follows /v1/, decoded
	header       http.Header
}

// grant is a token that Vault granted through the proxy.
type grant struct {
	token, accessor string
}

// newProxy opens a proxy before a Vault. The test's end closes it.
func (s *sandbox) newProxy(v *vaulttest.Vault) *proxy {
	s.t.Helper()
	return s.openProxy(v, (*httptest.Server).Start)
}

// openProxy is newProxy with another way to start the server.
func (s *sandbox) openProxy(v *vaulttest.Vault, start func(*httptest.Server)) *proxy {
	s.t.Helper()
	target, err := url.Parse(v.Address)
	if err != nil {
		s.t.Fatal(err)
	}
	g := &proxy{sandbox: s}
	g.forward = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: g.inspect,
		Transport:      &http.Transport{MaxIdleConnsPerHost: 64},
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { drop(w) },
	}
	g.server = httptest.NewUnstartedServer(g)
	// a client that does not trust it is what some tests want
	g.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(g.server)
	s.t.Cleanup(func() {
		g.server.CloseClientConnections()
		g.server.Close()
	})
	g.address = g.server.URL
	return g
}

// ServeHTTP implements http.Handler.
func (g *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	g.mu.Lock()
	if ownLookup.MatchString(path) {
		g.lookups++
	} else {
		g.passed = append(g.passed, passage{r.Method, path, r.Header.Clone()})
	}
	override := g.override
	g.mu.Unlock()
	if override != nil {
		if answer := override(path); answer != nil {
			answer(w, r)
			return
		}
	}
	g.forward.ServeHTTP(w, r)
}

// inspect registers the credentials in Vault's answers as secrets.
func (g *proxy) inspect(response *http.Response) error {
	path := response.Request.URL.Path
	if response.StatusCode >= http.StatusInternalServerError {
		g.sandbox.t.Logf("Vault answers %s %s with %s", response.Request.Method, path,
			response.Status)
	}
	if !strings.Contains(path, "/auth/") && !strings.Contains(path, "/wrapping/") {
		return nil
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
			Accessor    string `json:"accessor"`
		} `json:"auth"`
		Data struct {
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return nil
	}
	g.sandbox.keep(answer.Auth.ClientToken)
	g.sandbox.keep(answer.Data.SecretID)
	if strings.HasSuffix(path, "/login") && answer.Auth.ClientToken != "" {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.tokens = append(g.tokens, grant{answer.Auth.ClientToken, answer.Auth.Accessor})
	}
	return nil
}

// answerWith makes the proxy answer in Vault's place wherever choose returns an answer. Nil lets
// everything through.
func (g *proxy) answerWith(choose func(path string) http.HandlerFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.override = choose
}

// cut makes Vault unreachable: connections break without an answer.
func (g *proxy) cut() {
	g.answerAll(func(w http.ResponseWriter, _ *http.Request) { drop(w) })
}

// answerAll makes the proxy answer every request.
func (g *proxy) answerAll(answer http.HandlerFunc) {
	g.answerWith(func(string) http.HandlerFunc { return answer })
}

// open lets everything through again.
func (g *proxy) open() { g.answerWith(nil) }

// hold keeps reads of secrets waiting until release is called.
func (g *proxy) hold() (release func()) { return g.holdPaths("secret/data/") }

// holdEverything keeps all requests waiting until release is called.
func (g *proxy) holdEverything() (release func()) { return g.holdPaths("") }

func (g *proxy) holdPaths(prefix string) (release func()) {
	held := make(chan struct{})
	g.answerWith(func(path string) http.HandlerFunc {
		if !strings.HasPrefix(path, prefix) {
			return nil
		}
		return func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-held:
				g.forward.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
		}
	})
	return sync.OnceFunc(func() { close(held) })
}

// holdAnswers lets reads of secrets reach Vault, and keeps Vault's answers until release is called.
// The channel is closed when the first answer is held.
func (g *proxy) holdAnswers() (answered <-chan struct{}, release func()) {
	held, first := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(first) })
	g.answerWith(func(path string) http.HandlerFunc {
		if !strings.HasPrefix(path, "secret/data/") {
			return nil
		}
		return func(w http.ResponseWriter, r *http.Request) {
			kept := httptest.NewRecorder()
			g.forward.ServeHTTP(kept, r)
			once()
			<-held
			maps.Copy(w.Header(), kept.Header())
			w.WriteHeader(kept.Code)
			_, _ = kept.Body.WriteTo(w)
		}
	})
	return first, sync.OnceFunc(func() { close(held) })
}

// count counts the requests whose path begins with a prefix.
func (g *proxy) count(prefix string) int {
	n := 0
	for _, one := range g.seen() {
		if strings.HasPrefix(one.path, prefix) {
			n++
		}
	}
	return n
}

// lookedUp counts the lookups of secret_ids.
func (g *proxy) lookedUp() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lookups
}

// seen returns what reached the proxy so far.
func (g *proxy) seen() []passage {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]passage(nil), g.passed...)
}

// granted returns the tokens granted so far.
func (g *proxy) granted() []grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]grant(nil), g.tokens...)
}

// Paths that a proxy counts.
const (
	loginPath = "auth/approle/login"
	renewPath = "auth/token/renew-self"
)

// drop breaks the connection without an answer.
func drop(w http.ResponseWriter) {
	if hijacked, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = hijacked.Close()
	}
}
