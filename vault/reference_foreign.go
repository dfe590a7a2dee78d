package vault

import "strings"

// foreignForm recognises what other tools and platforms call a reference, and says what to send
// instead; "" for anything else. It looks at the beginning alone: the rest may legally be the name
// of a mount, a secret or a key.
func foreignForm(text string) string {
	switch {
	case strings.HasPrefix(text, "v1/"), text == "v1", strings.HasPrefix(text, "/v1/"):
		return "it begins with v1/, which belongs to Vault's HTTP API: leave that out and send " +
			"mount/data/path/to/secret/key"
	case isURL(text):
		return "it is a URL: send only what follows the host and v1/, " +
			"mount/data/path/to/secret/key, and name the connection beside it"
	case strings.HasPrefix(strings.TrimLeft(text, " "), "{{"):
		return "it is a stored reference in {{ }}: send the part behind its last | alone, " +
			"mount/data/path/to/secret/key, and the part before its first | as the connection"
	}
	return ""
}

// isURL reports whether a text begins with a scheme and two slashes, such as https:// or
// ref+vault://.
func isURL(text string) bool {
	scheme, _, found := strings.Cut(text, "://")
	if !found || scheme == "" {
		return false
	}
	return strings.Trim(strings.ToLower(scheme), "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}
