{{/*
secret-sidecar.initContainer is one item of a pod's initContainers; let it be the first. The reasons of its fields are in
deploy/kubernetes/component-with-own-fs-group/pod.yaml, which holds the same. `make test-manifests` compares the two.
*/}}
{{- define "secret-sidecar.initContainer" -}}
{{- include "secret-sidecar.requireValues" . -}}
{{- if semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version -}}
{{- fail (printf "secret-sidecar needs Kubernetes 1.29 or later for its native sidecar, this is %s" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $values := index .Values "secret-sidecar" -}}
- name: secret-sidecar
  image: {{ include "secret-sidecar.image" . }}
  {{- with $values.image.pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  restartPolicy: Always
  args: [serve, --config=/etc/secret-sidecar/config.yaml, {{ printf "--drain-timeout=%s" $values.drainTimeout | quote }}]
  {{- with $values.env }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  startupProbe:
    exec: {command: [/secret-sidecar, health, --service=liveness]}
    periodSeconds: 1
    timeoutSeconds: 5
    failureThreshold: 60
  readinessProbe:
    exec: {command: [/secret-sidecar, health]}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  livenessProbe:
    exec: {command: [/secret-sidecar, health, --service=liveness]}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
  volumeMounts:
    - name: secret-sidecar-socket
      mountPath: /run/secret-sidecar
    - name: secret-sidecar-config
      mountPath: /etc/secret-sidecar
      readOnly: true
    {{- if $values.ownIdentity.audience }}
    - name: secret-sidecar-token
      mountPath: /var/run/secrets/secret-sidecar
      readOnly: true
    {{- else }}
    - name: secret-sidecar-approle
      mountPath: /etc/secret-sidecar-approle
      readOnly: true
    {{- end }}
{{- end }}

{{- define "secret-sidecar.image" -}}
{{- $image := (index .Values "secret-sidecar").image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ required "set secret-sidecar.image.tag or, better, secret-sidecar.image.digest" $image.tag }}
{{- end -}}
{{- end }}
