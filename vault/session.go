package vault

// session is what the keeper publishes: the token to use, or why there is none. It is immutable.
type session struct {
	// token is nil when there is none; it may have expired.
	token *token
	// active are the credentials of the last successful login; zero before it.
	active       credentials
	everLoggedIn bool
	// problem is ErrLoginRejected or ErrLoginPending when the newest credentials do not work or cannot be read, else
	// nil. There may be a token all the same. Outages are the gate's.
	problem error
	// hopeless is why no login will be tried soon, older credentials included; nil while one may succeed.
	hopeless error
	// replaced is closed after the next session is published.
	replaced chan struct{}
}

func newSession() *session { return &session{replaced: make(chan struct{})} }
