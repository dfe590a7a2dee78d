// Package k8s stands in for go-discover's own of that name: Vault mentions its type.
package k8s

// Provider finds nothing.
type Provider struct{}
