variable "role_name" {
  description = "Name of the role and of its policy: one for each worker and environment."
  type        = string
  default     = "flow-worker"
}

variable "kv_mount" {
  description = "Path of the KV version 2 mount with the secrets."
  type        = string
  default     = "flows"
}

variable "secret_paths" {
  description = "Which secrets of the mount the worker may read, for example [\"team-a/*\"]; [\"*\"] is all of them. There is no default: say what it needs."
  type        = list(string)
}

variable "kubernetes_mount" {
  description = "Path of the kubernetes auth method, which is configured for the cluster."
  type        = string
  default     = "kubernetes"
}

variable "service_accounts" {
  description = "Service accounts of the pods that may log in."
  type        = list(string)
  default     = ["worker"]
}

variable "namespaces" {
  description = "Kubernetes namespaces of these pods."
  type        = list(string)
  default     = ["flows"]
}

variable "audience" {
  description = "Audience of the pods' projected tokens."
  type        = string
  default     = "vault"
}

variable "bound_cidrs" {
  description = "Networks that logins and tokens are bound to, for example [\"10.0.0.0/8\"]. Null binds them to none."
  type        = list(string)
  default     = null
}
