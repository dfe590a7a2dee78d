package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/smallfile"
)

// DefaultStream is the name of the stream where a Config names none.
const DefaultStream = "secret-sidecar"

const (
	// dialTimeout bounds the beginning of a connection, and commandTimeout each command on it.
	dialTimeout    = 2 * time.Second
	commandTimeout = 2 * time.Second
	// poolSize is enough for one reader and the batches of one publisher.
	poolSize         = 4
	maxPasswordBytes = 4 << 10
	maxCABytes       = 1 << 20
)

// Config says where the stream is. The zero value is no fleet.
type Config struct {
	// URL is redis:// or rediss:// as go-redis takes it: with master_name in its query it names
	// Sentinels, with addr and without master_name nodes of a cluster, and otherwise one server. It
	// may hold a password.
	URL redact.String
	// PasswordFile holds the password in the place of one in URL. It is read for each connection, so
	// that a changed password needs no restart. Empty is none.
	PasswordFile string
	// CAFile holds the authorities to trust in the place of the system's, in PEM format.
	CAFile string
	// Stream is the name of the stream; empty is DefaultStream.
	Stream string
}

// ErrURL is what is wrong with a Config's URL. Its text never quotes the URL.
var ErrURL = errors.New("is no URL of a Redis: write redis://HOST:PORT, or rediss://HOST:PORT " +
	"with TLS, with the parameters that go-redis knows")

// Check says what is wrong with the URL, without a look at files or the network.
func (c Config) Check() error {
	_, err := c.options(nil)
	return err
}

// options are those of a client, of one of the three kinds that go-redis has.
type options struct {
	single   *redis.Options
	sentinel *redis.FailoverOptions
	cluster  *redis.ClusterOptions
}

func (o options) tls() *tls.Config {
	switch {
	case o.sentinel != nil:
		return o.sentinel.TLSConfig
	case o.cluster != nil:
		return o.cluster.TLSConfig
	}
	return o.single.TLSConfig
}

func (o options) hasPassword() bool {
	switch {
	case o.sentinel != nil:
		return o.sentinel.Password != ""
	case o.cluster != nil:
		return o.cluster.Password != ""
	}
	return o.single.Password != ""
}

func (c Config) options(authorities *x509.CertPool) (options, error) {
	o, err := c.parse()
	if err != nil {
		return options{}, err
	}
	config := o.tls()
	switch {
	case config != nil && config.InsecureSkipVerify:
		return options{}, errors.New("has skip_verify, and certificates are always verified: " +
			"remove it, and name the authority in ca_file")
	case config == nil && c.CAFile != "":
		return options{}, errors.New("has no TLS for ca_file: write rediss://")
	case c.PasswordFile != "" && o.hasPassword():
		return options{}, errors.New(
			"holds a password, and there is password_file too: remove one of them")
	}
	if config != nil {
		config.MinVersion, config.RootCAs = tls.VersionTLS12, authorities
	}
	c.tune(o)
	return o, nil
}

// parse lets go-redis read the URL. Its errors may quote it, and so they stay here.
func (c Config) parse() (options, error) {
	text := c.URL.Reveal()
	parsed, err := url.Parse(text)
	if err != nil {
		return options{}, ErrURL
	}
	var o options
	query := parsed.Query()
	switch {
	case query.Has("master_name"):
		o.sentinel, err = redis.ParseFailoverURL(text)
	case query.Has("addr"):
		o.cluster, err = redis.ParseClusterURL(text)
	default:
		o.single, err = redis.ParseURL(text)
	}
	if err != nil {
		return options{}, ErrURL
	}
	return o, nil
}

// tune sets what the URL has no say in. The older protocol has no messages that the server pushes.
// Retries are ours: a reader has to know that its connection is another one.
func (c Config) tune(o options) {
	switch {
	case o.sentinel != nil:
		s := o.sentinel
		s.Protocol, s.MaxRetries, s.DialTimeout, s.DialerRetries = 2, -1, dialTimeout, 1
		s.ReadTimeout, s.WriteTimeout, s.ContextTimeoutEnabled = commandTimeout, commandTimeout, true
		s.PoolSize, s.DisableIdentity, s.ReplicaOnly = poolSize, true, false
		s.CredentialsProviderContext = c.credentials(s.Username)
	case o.cluster != nil:
		k := o.cluster
		k.Protocol, k.MaxRetries, k.DialTimeout, k.DialerRetries = 2, -1, dialTimeout, 1
		k.ReadTimeout, k.WriteTimeout, k.ContextTimeoutEnabled = commandTimeout, commandTimeout, true
		k.PoolSize, k.DisableIdentity, k.ReadOnly = poolSize, true, false
		k.RouteByLatency, k.RouteRandomly = false, false
		k.CredentialsProviderContext = c.credentials(k.Username)
		k.MaintNotificationsConfig = noMaintenance()
	default:
		s := o.single
		s.Protocol, s.MaxRetries, s.DialTimeout, s.DialerRetries = 2, -1, dialTimeout, 1
		s.ReadTimeout, s.WriteTimeout, s.ContextTimeoutEnabled = commandTimeout, commandTimeout, true
		s.PoolSize, s.DisableIdentity = poolSize, true
		s.CredentialsProviderContext = c.credentials(s.Username)
		s.MaintNotificationsConfig = noMaintenance()
	}
}

func noMaintenance() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// credentials reads the password for each new connection; nil leaves it to the URL.
func (c Config) credentials(user string) func(context.Context) (string, string, error) {
	if c.PasswordFile == "" {
		return nil
	}
	return func(context.Context) (string, string, error) {
		content, err := smallfile.Read(c.PasswordFile, maxPasswordBytes)
		if err != nil {
			return "", "", fmt.Errorf("%w: %w", errPassword, err)
		}
		return user, strings.TrimRight(string(content), "\r\n"), nil
	}
}

// connect makes the client. It opens no connection yet. The caller closes it.
func (c Config) connect() (redis.UniversalClient, error) {
	var authorities *x509.CertPool
	if c.CAFile != "" {
		content, err := smallfile.Read(c.CAFile, maxCABytes)
		if err != nil {
			return nil, fmt.Errorf("read the authorities of the fleet's Redis: %w", err)
		}
		authorities = x509.NewCertPool()
		if !authorities.AppendCertsFromPEM(content) {
			return nil, errors.New(
				"read the authorities of the fleet's Redis: ca_file holds no certificate in PEM format")
		}
	}
	o, err := c.options(authorities)
	if err != nil {
		return nil, fmt.Errorf("the fleet's Redis: the URL %w", err)
	}
	// go-redis writes to standard error by itself, lines that are no log events, and repeats them.
	logging.Disable()
	switch {
	case o.sentinel != nil:
		return redis.NewFailoverClient(o.sentinel), nil
	case o.cluster != nil:
		return redis.NewClusterClient(o.cluster), nil
	}
	return redis.NewClient(o.single), nil
}
