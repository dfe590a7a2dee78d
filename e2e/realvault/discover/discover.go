// Package discover stands in for HashiCorp's go-discover in the Vault server of the tests. The
// original asks fourteen clouds for the addresses of a cluster's nodes, and their libraries are a
// third of what Vault compiles. The tests name their nodes themselves (retry_join, never
// auto_join), so that here every question is answered with an error.
package discover

import (
	"errors"
	"log"
)

var errLeftOut = errors.New(
	"auto_join is left out of this Vault: name the nodes with leader_api_addr")

// Provider looks addresses up.
type Provider any

// Providers is empty: no cloud is known.
var Providers map[string]Provider

// Config is what an auto_join says.
type Config map[string]string

// String is empty: there is no Config.
func (Config) String() string { return "" }

// Parse refuses every auto_join.
func Parse(string) (Config, error) { return nil, errLeftOut }

// Discover finds no address.
type Discover struct{}

// Option changes nothing.
type Option func(*Discover) error

// New returns a Discover that finds no address.
func New(...Option) (*Discover, error) { return &Discover{}, nil }

// WithProviders leaves all providers out.
func WithProviders(map[string]Provider) Option { return nil }

// Addrs fails: there is nobody to ask.
func (*Discover) Addrs(string, *log.Logger) ([]string, error) { return nil, errLeftOut }
