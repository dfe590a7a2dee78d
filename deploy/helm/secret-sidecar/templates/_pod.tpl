{{/*
secret-sidecar.podSecurityContext is what a pod's securityContext needs: merge it with your own.
*/}}
{{- define "secret-sidecar.podSecurityContext" -}}
{{- include "secret-sidecar.requireValues" . -}}
fsGroup: {{ int64 (index .Values "secret-sidecar").fsGroup }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}

{{/*
secret-sidecar.volumes are items of a pod's volumes.
*/}}
{{- define "secret-sidecar.volumes" -}}
{{- include "secret-sidecar.requireValues" . -}}
{{- $values := index .Values "secret-sidecar" -}}
- name: secret-sidecar-socket
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: secret-sidecar-config
  configMap: {name: {{ include "secret-sidecar.configMapName" . }}}
{{- if $values.ownIdentity.audience }}
{{- if $values.approleSecret -}}
{{- fail "secret-sidecar.ownIdentity.audience and secret-sidecar.approleSecret are two ways to log in: give one" -}}
{{- end }}
- name: secret-sidecar-token
  projected:
    defaultMode: 288 # 0440
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ $values.ownIdentity.audience | quote }}
          expirationSeconds: {{ int64 $values.ownIdentity.expirationSeconds }}
{{- else }}
- name: secret-sidecar-approle
  secret:
    secretName: {{ default (printf "%s-secret-sidecar-approle" .Release.Name) $values.approleSecret | quote }}
    defaultMode: 288 # 0440
{{- end }}
{{- end }}
