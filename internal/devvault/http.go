package devvault

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
)

const (
	maxRequestBytes = 32 << 20 // Vault's default max_request_size
	maxStringBytes  = 1 << 20  // Vault's default max_json_string_value_length
)

// operation is Vault's name for what a request does.
type operation string

const (
	opCreate operation = "create"
	opRead   operation = "read"
	opUpdate operation = "update"
	opPatch  operation = "patch"
	opDelete operation = "delete"
	opList   operation = "list"
)

// request is one call of the API.
type request struct {
	op      operation
	path    string // after /v1/, decoded
	rest    string // the part of path below the mount, set when the mount is known
	query   url.Values
	body    fields
	tokenID string
	token   *token // who asks; nil on paths that need no token
	wrapTTL time.Duration
}

// answer is what a request leads to when it does not fail. The zero value is 204 No Content.
type answer struct {
	status   int            // 0 is 200, or 204 when there is nothing to say
	data     map[string]any // nil is JSON's null
	auth     map[string]any
	warnings []string
	lease    time.Duration
	mount    string // the type of the mount that answers
	flat     bool   // repeat data's fields at the top, as the older sys paths do
	bare     bool   // data's fields are the whole body
	raw      []byte // the finished body, in place of all the above
	accessor string // of what is inside, for a wrapping
}

// ServeHTTP serves Vault's HTTP API below /v1/.
func (v *Vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if strings.ContainsFunc(r.URL.Path, func(c rune) bool { return !unicode.IsPrint(c) }) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	v.mux.ServeHTTP(w, r) // redirects paths with "//", "." and ".." as Vault does
}

func (v *Vault) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	req, err := parseRequest(w, r)
	if err != nil {
		writeError(w, err)
		return
	}
	status, body, audited, err := v.perform(req)
	if audited && v.onRequest != nil {
		v.onRequest(Request{Operation: string(req.op), Path: req.path, Root: req.token.isRoot()})
	}
	if err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(status)
	w.Write(body) //nolint:errcheck,gosec // a client that left needs no answer; it is JSON, never HTML
}

// perform carries a request out and encodes its answer. audited is false where Vault would not
// audit it.
func (v *Vault) perform(r *request) (status int, body []byte, audited bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if a := v.state(r); a != nil {
		status, body = encode(a)
		return status, body, false, nil
	}
	if v.sealed {
		return 0, nil, false, errSealed
	}
	a, err := v.handle(r)
	if err != nil {
		return 0, nil, true, err
	}
	status, body = encode(a)
	if r.wrapTTL > 0 && status == http.StatusOK && a.raw == nil {
		body = v.wrap(r, a, body)
	}
	return status, body, true, nil
}

func parseRequest(w http.ResponseWriter, r *http.Request) (*request, error) {
	req := &request{path: strings.TrimPrefix(r.URL.Path, "/v1/"), query: r.URL.Query()}
	var err error
	if req.op, err = requestOperation(r); err != nil {
		return nil, err
	}
	if req.op == opList && !strings.HasSuffix(req.path, "/") {
		req.path += "/"
	}
	req.tokenID = r.Header.Get("X-Vault-Token")
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok &&
		req.tokenID == "" {
		req.tokenID = bearer
	}
	if wrap := r.Header.Get("X-Vault-Wrap-TTL"); wrap != "" {
		if req.wrapTTL, err = parseDuration(wrap); err != nil {
			return nil, badRequest("error parsing X-Vault-Wrap-TTL header: %v", err)
		}
	}
	req.body, err = parseBody(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	return req, err
}

func requestOperation(r *http.Request) (operation, error) {
	switch r.Method {
	case http.MethodGet:
		if list := r.URL.Query().Get("list"); list == "true" || list == "1" {
			return opList, nil
		}
		return opRead, nil
	case http.MethodPost, http.MethodPut:
		return opUpdate, nil
	case http.MethodDelete:
		return opDelete, nil
	case http.MethodPatch:
		return opPatch, nil
	case "LIST":
		return opList, nil
	}
	return "", &apiError{status: http.StatusMethodNotAllowed}
}

func parseBody(body io.Reader) (fields, error) {
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, &apiError{http.StatusRequestEntityTooLarge,
			[]string{"http: request body too large"}}
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	var parsed fields
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&parsed); err != nil {
		return nil, badRequest("error parsing JSON: failed to parse JSON input: %v", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, &apiError{http.StatusInternalServerError,
			[]string{"invalid text after top-level value"}}
	}
	if hasLongString(map[string]any(parsed)) {
		return nil, &apiError{http.StatusInternalServerError,
			[]string{"JSON string value exceeds allowed length"}}
	}
	return parsed, nil
}

func hasLongString(value any) bool {
	switch value := value.(type) {
	case string:
		return len(value) > maxStringBytes
	case []any:
		for _, element := range value {
			if hasLongString(element) {
				return true
			}
		}
	case map[string]any:
		for _, element := range value {
			if hasLongString(element) {
				return true
			}
		}
	}
	return false
}

// envelope is the outer shape of Vault's answers.
type envelope struct {
	RequestID     string         `json:"request_id"`
	LeaseID       string         `json:"lease_id"`
	Renewable     bool           `json:"renewable"`
	LeaseDuration int64          `json:"lease_duration"`
	Data          map[string]any `json:"data"`
	WrapInfo      *wrapInfo      `json:"wrap_info"`
	Warnings      []string       `json:"warnings"`
	Auth          map[string]any `json:"auth"`
	MountType     string         `json:"mount_type"`
}

func encode(a *answer) (status int, body []byte) {
	if a == nil {
		return http.StatusNoContent, nil
	}
	status = a.status
	if status == 0 {
		status = http.StatusOK
	}
	switch {
	case a.raw != nil:
		return status, a.raw
	case a.bare:
		return status, marshal(a.data)
	}
	body = marshal(envelope{
		RequestID: newUUID(), LeaseDuration: seconds(a.lease), Data: a.data,
		Warnings: a.warnings, Auth: a.auth, MountType: a.mount,
	})
	if a.flat && len(a.data) > 0 {
		top := bytes.TrimSuffix(marshal(a.data), []byte("}\n"))
		body = append(append(top, ','), body[1:]...)
	}
	return status, body
}

// marshal encodes as Vault does: compact, with <, > and & escaped, ended by a newline.
func marshal(value any) []byte {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(value); err != nil {
		// everything in an answer came from JSON
		panic("devvault: encode an answer: " + err.Error())
	}
	return b.Bytes()
}

func writeError(w http.ResponseWriter, err error) {
	failure := &apiError{status: http.StatusInternalServerError, errors: []string{err.Error()}}
	errors.As(err, &failure)
	texts := failure.errors
	if texts == nil {
		texts = []string{}
	}
	w.WriteHeader(failure.status)
	w.Write(marshal(map[string]any{"errors": texts})) //nolint:errcheck // a client that left needs no answer
}
