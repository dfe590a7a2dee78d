output "role_id" {
  description = "The role_id for the Kubernetes Secret. It is no secret, and worth nothing without a secret_id."
  value       = vault_approle_auth_backend_role.worker.role_id
}
