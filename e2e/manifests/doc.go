// Package manifests tests what deploy/ gives to a cluster: the Kustomize components, the Helm
// library chart and the Terraform module, rendered by the tools that users run, and judged by
// Kubernetes' own code. It is a module of its own, so that nothing of Kubernetes is ever linked
// into the product.
package manifests
