package devvault

import (
	"fmt"
	"net/http"
	"strings"
)

// apiError is an answer that says no, in Vault's words.
type apiError struct {
	status int
	errors []string // the body's errors array
}

func (e *apiError) Error() string { return strings.Join(e.errors, "; ") }

var (
	// errSealed answers everything while the Vault is sealed.
	errSealed = &apiError{http.StatusServiceUnavailable, []string{"Vault is sealed"}}
	// errForbidden answers a request without a token, and a login that is locked out.
	errForbidden = &apiError{http.StatusForbidden, []string{"permission denied"}}
	// errInvalidToken answers a token that is unknown, expired, revoked or used up.
	errInvalidToken = &apiError{http.StatusForbidden,
		[]string{"2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"}}
	// errDenied answers what the token's policies do not allow.
	errDenied = &apiError{http.StatusForbidden, []string{multiError("permission denied")}}
	// errNotFound answers when the path is right and nothing is there.
	errNotFound = &apiError{status: http.StatusNotFound}
	// errUnsupportedPath answers a path that its mount does not know.
	errUnsupportedPath = &apiError{http.StatusNotFound, []string{multiError("unsupported path")}}
	// errUnsupportedOperation answers a method that its path does not know.
	errUnsupportedOperation = &apiError{http.StatusMethodNotAllowed,
		[]string{multiError("unsupported operation")}}
)

func badRequest(format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, []string{fmt.Sprintf(format, args...)}}
}

func noRoute(path string) *apiError {
	return &apiError{http.StatusNotFound,
		[]string{fmt.Sprintf("no handler for route %q. route entry not found.", path)}}
}

// multiError words one error the way Vault's multierror library does.
func multiError(text string) string { return "1 error occurred:\n\t* " + text + "\n\n" }
