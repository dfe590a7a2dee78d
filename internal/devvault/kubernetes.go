package devvault

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// reviewTimeout bounds the question to the cluster.
const reviewTimeout = 10 * time.Second

// verifyServiceAccount logs in by the kubernetes method.
func verifyServiceAccount(r *request, b *identityBackend) (*identityRole, map[string]string, error) {
	name, text := r.body.text("role"), r.body.text("jwt")
	role := b.roles[name]
	switch {
	case name == "":
		return nil, nil, badRequest("missing role")
	case text == "":
		return nil, nil, badRequest("missing jwt")
	case role == nil:
		return nil, nil, badRequest("invalid role name %q", name)
	case b.config == nil:
		return nil, nil, internalError("could not load backend configuration")
	}
	token, err := parseJWT(text)
	if err != nil {
		return nil, nil, errForbidden
	}
	audience := role.bound.text("audience")
	if err := token.claims.checkServiceAccount(role, audience); err != nil {
		return nil, nil, err
	}
	account := token.claims.Kubernetes.ServiceAccount
	if account.UID == "" {
		return nil, nil, internalError("could not parse UID from claims")
	}
	if !confirms(b.config, text, audience, &token.claims) {
		return nil, nil, errForbidden
	}
	return role, map[string]string{
		"role": name, "service_account_name": account.Name, "service_account_namespace": token.claims.Kubernetes.Namespace,
		"service_account_secret_name": "", "service_account_uid": account.UID,
	}, nil
}

func (c *claims) checkServiceAccount(role *identityRole, audience string) error {
	var wanted []string
	if audience != "" {
		wanted = []string{audience}
	}
	if err := c.check("", "", wanted, true); err != nil {
		return forbidden(err.Error())
	}
	switch {
	case c.Kubernetes == nil || !role.allows("bound_service_account_names", c.Kubernetes.ServiceAccount.Name):
		return forbidden("service account name not authorized")
	case !role.allows("bound_service_account_namespaces", c.Kubernetes.Namespace):
		return forbidden("namespace not authorized")
	}
	return nil
}

// review is a TokenReview of Kubernetes.
type review struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Token     string   `json:"token"`
		Audiences []string `json:"audiences,omitempty"`
	} `json:"spec"`
	Status struct {
		Authenticated bool     `json:"authenticated"`
		Audiences     []string `json:"audiences"`
		User          struct {
			Username string `json:"username"`
			UID      string `json:"uid"`
		} `json:"user"`
	} `json:"status"`
}

// confirms asks the cluster whether the token is good and says the same of its owner.
func confirms(config fields, token, audience string, c *claims) bool {
	var asked review
	asked.APIVersion, asked.Kind = "authentication.k8s.io/v1", "TokenReview"
	asked.Spec.Token, asked.Spec.Audiences = token, c.Audience
	if audience != "" {
		asked.Spec.Audiences = []string{audience}
	}
	answer, ok := ask(config, asked)
	account := c.Kubernetes.ServiceAccount
	isWanted := func(one string) bool { return slices.Contains(answer.Status.Audiences, one) }
	return ok && answer.Status.Authenticated && slices.ContainsFunc(asked.Spec.Audiences, isWanted) &&
		answer.Status.User.Username == "system:serviceaccount:"+c.Kubernetes.Namespace+":"+account.Name &&
		answer.Status.User.UID == account.UID
}

// ask sends the TokenReview, with the token itself where no reviewer is configured.
func ask(config fields, asked review) (answer review, ok bool) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(config.text("kubernetes_ca_cert")))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: reviewTimeout}
	url := strings.TrimSuffix(config.text("kubernetes_host"), "/") + "/apis/authentication.k8s.io/v1/tokenreviews"
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(marshal(asked))) //nolint:noctx,gosec // bounded by the client; whoever configures the method chooses the host
	if err != nil {
		return answer, false
	}
	request.Header.Set("Content-Type", "application/json")
	bearer := asked.Spec.Token
	if reviewer := config.text("token_reviewer_jwt"); reviewer != "" {
		bearer = reviewer
	}
	request.Header.Set("Authorization", "Bearer "+bearer)
	response, err := client.Do(request) //nolint:gosec // see above
	if err != nil {
		return answer, false
	}
	defer response.Body.Close()
	isGood := response.StatusCode/100 == 2
	return answer, isGood && json.NewDecoder(response.Body).Decode(&answer) == nil
}
