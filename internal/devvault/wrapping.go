package devvault

import (
	"net/http"
	"time"
)

// wrapInfo tells where a wrapped answer is to be had.
type wrapInfo struct {
	Token           string `json:"token"`
	Accessor        string `json:"accessor"`
	TTL             int64  `json:"ttl"`
	CreationTime    string `json:"creation_time"`
	CreationPath    string `json:"creation_path"`
	WrappedAccessor string `json:"wrapped_accessor,omitempty"`
}

var (
	errBadWrapping   = badRequest("wrapping token is not valid or does not exist")
	errEmptyWrapping = &apiError{http.StatusForbidden,
		[]string{"error validating wrapping token: token is empty"}}
)

// wrap puts an answer away under a token that is good for one use, and returns the answer that says
// so.
func (v *Vault) wrap(r *request, inside *answer, body []byte) []byte {
	now := time.Now()
	t := &token{
		policies: []string{"response-wrapping"}, path: r.path, wrapped: body, usesLeft: 1,
		issued: now, granted: r.wrapTTL, expires: now.Add(r.wrapTTL),
	}
	v.tokens.add(t)
	info := &wrapInfo{
		Token: t.id, Accessor: t.accessor, TTL: seconds(r.wrapTTL), CreationTime: timestamp(now),
		CreationPath: r.path, WrappedAccessor: inside.accessor,
	}
	return marshal(envelope{WrapInfo: info})
}

// wrappingToken finds the wrapping token that a request names in its body or comes with. Looking is
// not a use.
func (v *Vault) wrappingToken(r *request) (*token, error) {
	id := r.body.text("token")
	if id == "" {
		id = r.tokenID
	}
	if id == "" {
		return nil, errEmptyWrapping
	}
	t := v.tokens.find(id)
	if t == nil || t.wrapped == nil {
		return nil, errBadWrapping
	}
	return t, nil
}

func (v *Vault) unwrap(r *request) (*answer, error) {
	t, err := v.wrappingToken(r)
	if err != nil {
		return nil, err
	}
	v.tokens.revoke(t)
	return &answer{raw: t.wrapped}, nil
}

func (v *Vault) lookUpWrapping(r *request) (*answer, error) {
	t, err := v.wrappingToken(r)
	if err != nil {
		return nil, err
	}
	return &answer{data: map[string]any{
		"creation_path": t.path, "creation_time": timestamp(t.issued),
		"creation_ttl": seconds(t.granted),
	}}, nil
}

// wrapGiven wraps whatever the caller sends, as sys/wrapping/wrap does.
func wrapGiven(r *request) (*answer, error) {
	if r.wrapTTL == 0 {
		return nil, badRequest("endpoint requires response wrapping to be used")
	}
	return &answer{data: r.body}, nil
}
