package main

import (
	"os"
	"strings"
)

// lookup finds an environment variable, as os.LookupEnv does.
type lookup func(name string) (value string, found bool)

// takeEnvironment returns the current environment and removes Vault's variables from the process,
// so that no library can pick up an address, a token or an option behind the configuration's back.
// The original environment stays visible in /proc/PID/environ, to root alone once the process is
// hardened.
func takeEnvironment() lookup {
	taken := make(map[string]string)
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		taken[name] = value
		if strings.HasPrefix(name, "VAULT_") {
			_ = os.Unsetenv(name) // fails only for names that cannot come out of Environ
		}
	}
	return func(name string) (string, bool) {
		value, found := taken[name]
		return value, found
	}
}
