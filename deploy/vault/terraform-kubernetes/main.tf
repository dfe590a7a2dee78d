# What docs/vault.md does by commands for a pod's own identity: the least policy, and a role of the kubernetes auth method. The
# method itself is there already, one for each cluster. No secret comes of this. `make test-manifests` compares the two.

resource "vault_policy" "worker" {
  name = var.role_name

  policy = <<-EOT
    # The secrets. Name folders (flows/data/team-a/*) where a worker needs no more.
    %{~for path in var.secret_paths~}
    path "${var.kv_mount}/data/${path}" {
      capabilities = ["read"]
    }
    %{~endfor~}

    # Optional: connections test lists the mounts.
    path "sys/mounts" {
      capabilities = ["read"]
    }
  EOT
}

resource "vault_kubernetes_auth_backend_role" "worker" {
  backend   = var.kubernetes_mount
  role_name = var.role_name

  bound_service_account_names      = var.service_accounts
  bound_service_account_namespaces = var.namespaces
  audience                         = var.audience

  token_policies = [vault_policy.worker.name]
  token_ttl      = 3600  # 1h
  token_max_ttl  = 86400 # 24h
  token_num_uses = 0     # must be 0: a token that is used up in the middle of a flow helps nobody

  token_bound_cidrs = var.bound_cidrs
}
