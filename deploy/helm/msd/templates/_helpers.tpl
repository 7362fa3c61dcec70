{{- define "msd.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The labels by which a component's pods are found. Call with (list . "broker"). */}}
{{- define "msd.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "msd.labels" -}}
{{ include "msd.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "msd.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{/* What the pods of both components have. Call with (list . .Values.broker). */}}
{{- define "msd.pod" -}}
automountServiceAccountToken: false
# Its variables have names like MSD_PORT.
enableServiceLinks: false
# SIGTERM ends msd within two seconds.
terminationGracePeriodSeconds: 10
{{- if (index . 1).hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
securityContext:
  {{- toYaml (index . 0).Values.podSecurityContext | nindent 2 }}
{{- with (index . 0).Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 1).nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 1).tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 1).affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "msd.hasWorkers" -}}
{{- if .Values.serverKey.public }}true{{ end -}}
{{- end -}}

{{- define "msd.serverKeySecret" -}}
{{- if .Values.serverKey.existingSecret -}}
{{- .Values.serverKey.existingSecret -}}
{{- else if .Values.serverKey.secret -}}
{{- printf "%s-server-key" (include "msd.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "msd.workerKeySecret" -}}
{{- .Values.workerKey.existingSecret | default (printf "%s-worker-key" (include "msd.fullname" .)) -}}
{{- end -}}

{{/* The content of a file with a secret key. Not checked in the schema, whose errors would print it. */}}
{{- define "msd.secretKey" -}}
{{- $key := trim (index . 1) -}}
{{- if not (regexMatch "^[0-9a-f]{64}$" $key) -}}
{{- fail (printf "%s.secret is not a secret key: give the content of a file NAME.key of msd keys, or %s.existingSecret" (index . 0) (index . 0)) -}}
{{- end -}}
{{- $key -}}
{{- end -}}

{{- define "msd.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end -}}

{{- define "msd.brokerMounts" -}}
- name: config
  mountPath: /etc/msd
  readOnly: true
- name: keys
  mountPath: /var/lib/msd
- name: tmp
  mountPath: /tmp
{{- end -}}

{{/* The data of the ConfigMap of the broker. */}}
{{- define "msd.config" -}}
config.toml: |
  [broker]
  host = {{ .Values.broker.host | quote }}
  status_port = {{ int .Values.broker.port }}
  keys = "/var/lib/msd/keys"
  {{- if .Values.metrics.enabled }}
  metrics_port = {{ int .Values.metrics.port }}
  {{- end }}
  {{- with .Values.broker.authority }}
  authority = {{ . | quote }}
  {{- end }}
{{- with .Values.workerKey.public }}
workers.pub: {{ trim . | quote }}
{{- end }}
{{- end -}}
