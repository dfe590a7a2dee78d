# What docs/vault.md does by commands: a KV mount, the least policy, and an AppRole. `make test-manifests` compares the two.

resource "vault_mount" "kv" {
  count = var.create_kv_mount ? 1 : 0

  path    = var.kv_mount
  type    = "kv"
  options = { version = "2" }

  lifecycle {
    prevent_destroy = true # with the mount go all secrets in it
  }
}

resource "vault_policy" "worker" {
  name = var.role_name

  policy = <<-EOT
    # The secrets. Name directories (flows/data/team-a/*) where a worker needs no more.
    %{~for path in var.secret_paths~}
    path "${var.kv_mount}/data/${path}" {
      capabilities = ["read"]
    }
    %{~endfor~}

    # Optional: connections test lists the mounts.
    path "sys/mounts" {
      capabilities = ["read"]
    }

    # Optional: the metrics tell when the secret_id expires.
    path "auth/${var.approle_mount}/role/${var.role_name}/secret-id/lookup" {
      capabilities = ["update"]
    }
  EOT
}

resource "vault_auth_backend" "approle" {
  count = var.create_approle_mount ? 1 : 0

  type = "approle"
  path = var.approle_mount

  lifecycle {
    prevent_destroy = true # with the method go the roles of everybody
  }
}

resource "vault_approle_auth_backend_role" "worker" {
  backend   = var.create_approle_mount ? vault_auth_backend.approle[0].path : var.approle_mount
  role_name = var.role_name

  token_policies = [vault_policy.worker.name]
  token_ttl      = 3600  # 1h
  token_max_ttl  = 86400 # 24h
  token_num_uses = 0     # must be 0: a token that is used up in the middle of a flow helps nobody

  secret_id_ttl      = 2592000 # 720h
  secret_id_num_uses = 0       # every start of a pod uses it once

  token_bound_cidrs     = var.bound_cidrs
  secret_id_bound_cidrs = var.bound_cidrs
}
