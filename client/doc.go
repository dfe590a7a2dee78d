// Package client reads secrets from the sidecar that runs beside this process.
//
//	c, err := client.Open(ctx)
//	defer c.Close()
//	key, err := c.Get(ctx, "secret/data/mysec/api_key", client.Connection("prod"))
//
// A reference is what the sidecar takes, `mount/data/path/to/secret/key`, or what a platform
// stores, `{{connection|ap_sep_v1|mount/data/path/to/secret/key}}`, which names its connection
// itself.
//
// Every call ends by its context's deadline, or after the Timeout of the call. Within that time the
// client tries again what the sidecar says may succeed later, and waits for a sidecar that is away:
// it restarts faster than most flows run. What needs a person fails at once, as an *Error.
//
// The sidecar caches. Ask for a secret whenever you need it, instead of keeping it: then a rotated
// secret reaches you, and a deleted one stops doing so.
package client
