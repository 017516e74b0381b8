{{- define "kproxy.selector" -}}
app.kubernetes.io/name: kproxy
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "kproxy.labels" -}}
{{ include "kproxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "kproxy.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "kproxy.port" -}}
{{ splitList ":" . | last }}
{{- end }}

{{/* The files of the ConfigMap. */}}
{{- define "kproxy.files" -}}
config.conf: |
{{- $kubeconfig := dict "clientConnection" (dict "kubeconfig" "/var/lib/kube-proxy/kubeconfig.conf") }}
{{- $kind := dict "apiVersion" "kubeproxy.config.k8s.io/v1alpha1" "kind" "KubeProxyConfiguration" }}
{{- merge $kind $kubeconfig (deepCopy .Values.config) | toYaml | nindent 2 }}
kubeconfig.conf: |
  apiVersion: v1
  kind: Config
  clusters:
    - name: default
      cluster:
        certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
        server: {{ .Values.apiServer | quote }}
  users:
    - name: default
      user:
        tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
  contexts:
    - name: default
      context:
        cluster: default
        namespace: default
        user: default
  current-context: default
{{- end }}

{{/*
The name ends in a digest of the content. So a changed configuration is a rolling update like any
other, and a wrong one stops at the first nodes instead of reaching all of them at once.
*/}}
{{- define "kproxy.configMap" -}}
{{ .Release.Name }}-{{ include "kproxy.files" . | sha256sum | trunc 10 }}
{{- end }}

{{/* Not empty: the pod gets what the eBPF data path needs. */}}
{{- define "kproxy.ebpf" -}}
{{- if or .Values.keepEbpf (eq .Values.config.mode "ebpf") }}true{{ end }}
{{- end }}

{{/* Not empty: it also looks into pods' network namespaces. */}}
{{- define "kproxy.looksIntoPods" -}}
{{- $own := dig "kproxy" "ebpf" dict .Values.config }}
{{- if and (include "kproxy.ebpf" .) (eq "all" (get $own "socketHooks" | default "all")) }}true{{ end }}
{{- end }}

{{/* What each data path needs. CAP_SYS_ADMIN holds CAP_BPF and CAP_PERFMON. */}}
{{- define "kproxy.capabilities" -}}
{{- $all := list "NET_ADMIN" "NET_RAW" }}
{{- if include "kproxy.looksIntoPods" . }}
{{- $all = concat $all (list "SYS_ADMIN" "SYS_PTRACE") }}
{{- else if include "kproxy.ebpf" . }}
{{- $all = concat $all (list "BPF" "PERFMON") }}
{{- end }}
{{- toYaml $all }}
{{- end }}
