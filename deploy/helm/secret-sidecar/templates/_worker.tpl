{{/*
secret-sidecar.workerVolumeMounts are items of the volumeMounts of each container that asks the sidecar. Read-only, so
that the worker cannot put another socket in the place.
*/}}
{{- define "secret-sidecar.workerVolumeMounts" -}}
- name: secret-sidecar-socket
  mountPath: /run/secret-sidecar
  readOnly: true
{{- end }}

{{/*
secret-sidecar.workerEnv are items of the env of each container that asks the sidecar.
*/}}
{{- define "secret-sidecar.workerEnv" -}}
- name: SECRET_SIDECAR_SOCKET
  value: /run/secret-sidecar/sidecar.sock
{{- end }}
