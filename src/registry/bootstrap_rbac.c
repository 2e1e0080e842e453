/* The RBAC objects that a cluster begins with. Data: a role a row, a rule a line in it.
 *
 *   groups resources[ names=…]: verbs      lists by commas; "core" is the group without a name
 *   URL paths: verbs
 *
 * A role system:controller:NAME is bound to service account NAME of kube-system without a row of its own.
 * Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings */
#include "registry/bootstrap.h"

/* clang-format off */
const struct bootstrap_role bootstrap_roles[] = {
	{ .name = "admin", .aggregate_from = "admin" },
	{ .name = "cluster-admin", .rules =
		"* *: *\n"
		"URL *: *\n"
	},
	{ .name = "edit", .aggregate_to = "admin", .aggregate_from = "edit" },
	{ .name = "system:aggregate-to-admin", .aggregate_to = "admin", .rules =
		"authorization.k8s.io localsubjectaccessreviews: create\n"
		"rbac.authorization.k8s.io rolebindings,roles: create,delete,deletecollection,get,list,patch,update,watch\n"
	},
	{ .name = "system:aggregate-to-edit", .aggregate_to = "edit", .rules =
		"core pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy: get,list,watch\n"
		"core serviceaccounts: impersonate\n"
		"core pods,pods/attach,pods/exec,pods/portforward,pods/proxy: create,delete,deletecollection,patch,update\n"
		"core pods/eviction: create\n"
		"core configmaps,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,"
		"services/proxy: create,delete,deletecollection,patch,update\n"
		"core serviceaccounts/token: create\n"
		"core,events.k8s.io events: create,delete,deletecollection,patch,update\n"
		"apps daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,"
		"statefulsets/scale: create,delete,deletecollection,patch,update\n"
		"autoscaling horizontalpodautoscalers: create,delete,deletecollection,patch,update\n"
		"batch cronjobs,jobs: create,delete,deletecollection,patch,update\n"
		"extensions daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,"
		"replicationcontrollers/scale: create,delete,deletecollection,patch,update\n"
		"policy poddisruptionbudgets: create,delete,deletecollection,patch,update\n"
		"networking.k8s.io ingresses,networkpolicies: create,delete,deletecollection,patch,update\n"
		"coordination.k8s.io leases: create,delete,deletecollection,get,list,patch,update,watch\n"
		"resource.k8s.io resourceclaims,resourceclaimtemplates: create,delete,deletecollection,patch,update\n"
	},
	{ .name = "system:aggregate-to-view", .aggregate_to = "view", .rules =
		"core configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,"
		"replicationcontrollers/scale,serviceaccounts,services,services/status: get,list,watch\n"
		"core bindings,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,"
		"resourcequotas/status: get,list,watch\n"
		"core namespaces: get,list,watch\n"
		"core,events.k8s.io events: get,list,watch\n"
		"discovery.k8s.io endpointslices: get,list,watch\n"
		"apps controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,"
		"replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status: get,list,watch\n"
		"autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status: get,list,watch\n"
		"batch cronjobs,cronjobs/status,jobs,jobs/status: get,list,watch\n"
		"extensions daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,"
		"networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale: get,list,watch\n"
		"policy poddisruptionbudgets,poddisruptionbudgets/status: get,list,watch\n"
		"networking.k8s.io ingresses,ingresses/status,networkpolicies: get,list,watch\n"
		"resource.k8s.io resourceclaims,resourceclaims/status,resourceclaimtemplates: get,list,watch\n"
	},
	{ .name = "system:auth-delegator", .rules =
		"authentication.k8s.io tokenreviews: create\n"
		"authorization.k8s.io subjectaccessreviews: create\n"
	},
	{ .name = "system:basic-user", .rules =
		"authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews: create\n"
		"authentication.k8s.io selfsubjectreviews: create\n"
	},
	{ .name = "system:certificates.k8s.io:certificatesigningrequests:nodeclient", .rules =
		"certificates.k8s.io certificatesigningrequests/nodeclient: create\n"
	},
	{ .name = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", .rules =
		"certificates.k8s.io certificatesigningrequests/selfnodeclient: create\n"
	},
	{ .name = "system:certificates.k8s.io:kube-apiserver-client-approver", .rules =
		"certificates.k8s.io signers names=kubernetes.io/kube-apiserver-client: approve\n"
	},
	{ .name = "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver", .rules =
		"certificates.k8s.io signers names=kubernetes.io/kube-apiserver-client-kubelet: approve\n"
	},
	{ .name = "system:certificates.k8s.io:kubelet-serving-approver", .rules =
		"certificates.k8s.io signers names=kubernetes.io/kubelet-serving: approve\n"
	},
	{ .name = "system:certificates.k8s.io:legacy-unknown-approver", .rules =
		"certificates.k8s.io signers names=kubernetes.io/legacy-unknown: approve\n"
	},
	{ .name = "system:discovery", .rules =
		"URL /api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/: get\n"
	},
	{ .name = "system:heapster", .rules =
		"core events,namespaces,nodes,pods: get,list,watch\n"
		"extensions deployments: get,list,watch\n"
	},
	{ .name = "system:kube-aggregator", .rules =
		"core endpoints,services: get,list,watch\n"
	},
	{ .name = "system:kube-controller-manager", .rules =
		"core,events.k8s.io events: create,patch,update\n"
		"coordination.k8s.io leases: create\n"
		"coordination.k8s.io leases names=kube-controller-manager: get,update\n"
		"core secrets,serviceaccounts: create\n"
		"core secrets: delete\n"
		"core configmaps,namespaces,secrets,serviceaccounts: get\n"
		"core secrets,serviceaccounts: update\n"
		"authentication.k8s.io tokenreviews: create\n"
		"authorization.k8s.io subjectaccessreviews: create\n"
		"* *: list,watch\n"
		"core serviceaccounts/token: create\n"
	},
	{ .name = "system:kube-dns", .rules =
		"core endpoints,services: list,watch\n"
	},
	{ .name = "system:kube-scheduler", .rules =
		"core,events.k8s.io events: create,patch,update\n"
		"coordination.k8s.io leases: create\n"
		"coordination.k8s.io leases names=kube-scheduler: get,list,update,watch\n"
		"coordination.k8s.io leasecandidates: create,delete,deletecollection,get,list,patch,update,watch\n"
		"core nodes: get,list,watch\n"
		"core pods: delete,get,list,watch\n"
		"core bindings,pods/binding: create\n"
		"core pods/status: patch,update\n"
		"core replicationcontrollers,services: get,list,watch\n"
		"apps,extensions replicasets: get,list,watch\n"
		"apps statefulsets: get,list,watch\n"
		"policy poddisruptionbudgets: get,list,watch\n"
		"core persistentvolumeclaims,persistentvolumes: get,list,watch\n"
		"authentication.k8s.io tokenreviews: create\n"
		"authorization.k8s.io subjectaccessreviews: create\n"
		"storage.k8s.io csinodes: get,list,watch\n"
		"storage.k8s.io volumeattachments: get,list,watch\n"
		"core namespaces: get,list,watch\n"
		"storage.k8s.io csidrivers: get,list,watch\n"
		"storage.k8s.io csistoragecapacities: get,list,watch\n"
		"resource.k8s.io deviceclasses: get,list,watch\n"
		"resource.k8s.io resourceclaims: get,list,patch,update,watch\n"
		"resource.k8s.io resourceclaims/status: get,list,patch,update,watch\n"
		"core pods/finalizers: update\n"
		"resource.k8s.io resourceslices: get,list,watch\n"
		"resource.k8s.io resourceclaims: create,delete\n"
		"resource.k8s.io resourceclaims/binding: patch,update\n"
	},
	{ .name = "system:kubelet-api-admin", .rules =
		"core nodes: get,list,watch\n"
		"core nodes: proxy\n"
		"core nodes/log,nodes/metrics,nodes/proxy,nodes/stats: *\n"
		"core nodes/configz,nodes/healthz,nodes/pods: *\n"
	},
	{ .name = "system:monitoring", .rules =
		"URL /flagz,/healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*,/statusz: get\n"
		"core nodes/metrics: get\n"
	},
	{ .name = "system:node", .rules =
		"authentication.k8s.io tokenreviews: create\n"
		"authorization.k8s.io localsubjectaccessreviews,subjectaccessreviews: create\n"
		"core services: get,list,watch\n"
		"core nodes: create,get,list,watch\n"
		"core nodes/status: patch,update\n"
		"core nodes: patch,update\n"
		"core,events.k8s.io events: create,patch,update\n"
		"core pods: get,list,watch\n"
		"core pods: create,delete\n"
		"core pods/status: patch,update\n"
		"core pods/eviction: create\n"
		"core configmaps,secrets: get,list,watch\n"
		"core persistentvolumeclaims,persistentvolumes: get\n"
		"core endpoints: get\n"
		"certificates.k8s.io certificatesigningrequests: create,get,list,watch\n"
		"coordination.k8s.io leases: create,delete,get,patch,update\n"
		"storage.k8s.io volumeattachments: get\n"
		"core serviceaccounts/token: create\n"
		"core persistentvolumeclaims/status: get,patch,update\n"
		"storage.k8s.io csidrivers: get,list,watch\n"
		"storage.k8s.io csinodes: create,delete,get,patch,update\n"
		"node.k8s.io runtimeclasses: get,list,watch\n"
		"resource.k8s.io resourceclaims: get\n"
		"resource.k8s.io resourceslices: deletecollection\n"
		"core serviceaccounts: get\n"
	},
	{ .name = "system:node-bootstrapper", .rules =
		"certificates.k8s.io certificatesigningrequests: create,get,list,watch\n"
	},
	{ .name = "system:node-problem-detector", .rules =
		"core nodes: get\n"
		"core nodes/status: patch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	/* Ours: routes, policies and host ports of a node. */
	{ .name = "skiff:node-network", .rules =
		"core namespaces,nodes,pods: get,list,watch\n"
		"networking.k8s.io networkpolicies: get,list,watch\n"
	},
	{ .name = "system:node-proxier", .rules =
		"core endpoints,services: list,watch\n"
		"core nodes: get,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
		"networking.k8s.io servicecidrs: list,watch\n"
		"discovery.k8s.io endpointslices: list,watch\n"
	},
	{ .name = "system:persistent-volume-provisioner", .rules =
		"core persistentvolumes: create,delete,get,list,watch\n"
		"core persistentvolumeclaims: get,list,update,watch\n"
		"storage.k8s.io storageclasses: get,list,watch\n"
		"core events: watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:public-info-viewer", .rules =
		"URL /healthz,/livez,/readyz,/version,/version/: get\n"
	},
	{ .name = "system:service-account-issuer-discovery", .rules =
		"URL /.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/: get\n"
	},
	{ .name = "system:volume-scheduler", .rules =
		"core persistentvolumes: get,list,patch,update,watch\n"
		"storage.k8s.io storageclasses: get,list,watch\n"
		"core persistentvolumeclaims: get,list,patch,update,watch\n"
	},
	{ .name = "view", .aggregate_to = "edit", .aggregate_from = "view" },
	{ .name = "system:controller:attachdetach-controller", .rules =
		"core persistentvolumeclaims,persistentvolumes: list,watch\n"
		"core nodes: get,list,watch\n"
		"core nodes/status: patch,update\n"
		"core pods: list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
		"storage.k8s.io volumeattachments: create,delete,get,list,watch\n"
		"storage.k8s.io csidrivers: get,list,watch\n"
		"storage.k8s.io csinodes: get,list,watch\n"
	},
	{ .name = "system:controller:certificate-controller", .rules =
		"certificates.k8s.io certificatesigningrequests: delete,get,list,watch\n"
		"certificates.k8s.io certificatesigningrequests/approval,certificatesigningrequests/status: update\n"
		"certificates.k8s.io signers names=kubernetes.io/kube-apiserver-client-kubelet: approve\n"
		"certificates.k8s.io signers names=kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,"
		"kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown: sign\n"
		"authorization.k8s.io subjectaccessreviews: create\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:clusterrole-aggregation-controller", .rules =
		"rbac.authorization.k8s.io clusterroles: escalate,get,list,patch,update,watch\n"
	},
	{ .name = "system:controller:cronjob-controller", .rules =
		"batch cronjobs: get,list,update,watch\n"
		"batch jobs: create,delete,get,list,patch,update,watch\n"
		"batch cronjobs/status: update\n"
		"batch cronjobs/finalizers: update\n"
		"core pods: delete,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:daemon-set-controller", .rules =
		"apps,extensions daemonsets: get,list,watch\n"
		"apps,extensions daemonsets/status: update\n"
		"apps,extensions daemonsets/finalizers: update\n"
		"core nodes: list,watch\n"
		"core pods: create,delete,list,patch,watch\n"
		"core pods/binding: create\n"
		"apps controllerrevisions: create,delete,get,list,patch,update,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:deployment-controller", .rules =
		"apps,extensions deployments: get,list,update,watch\n"
		"apps,extensions deployments/status: update\n"
		"apps,extensions deployments/finalizers: update\n"
		"apps,extensions replicasets: create,delete,get,list,patch,update,watch\n"
		"core pods: get,list,update,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:device-taint-eviction-controller", .rules =
		"core pods: delete,get,list,watch\n"
		"core pods/status: patch,update\n"
		"resource.k8s.io resourceclaims: get,list,watch\n"
		"resource.k8s.io resourceslices: get,list,watch\n"
		"resource.k8s.io deviceclasses: get,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:disruption-controller", .rules =
		"apps,extensions deployments: get,list,watch\n"
		"apps,extensions replicasets: get,list,watch\n"
		"core replicationcontrollers: get,list,watch\n"
		"policy poddisruptionbudgets: get,list,watch\n"
		"apps statefulsets: get,list,watch\n"
		"policy poddisruptionbudgets/status: update\n"
		"core pods/status: patch,update\n"
		"* */scale: get\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:endpoint-controller", .rules =
		"core pods,services: get,list,watch\n"
		"core endpoints: create,delete,get,list,update,watch\n"
		"core endpoints/restricted: create\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:endpointslice-controller", .rules =
		"core nodes,pods,services: get,list,watch\n"
		"core services/finalizers: update\n"
		"discovery.k8s.io endpointslices: create,delete,get,list,update,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:endpointslicemirroring-controller", .rules =
		"core endpoints,services: get,list,watch\n"
		"core services/finalizers: update\n"
		"core endpoints/finalizers: update\n"
		"discovery.k8s.io endpointslices: create,delete,get,list,update,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:ephemeral-volume-controller", .rules =
		"core pods: get,list,watch\n"
		"core pods/finalizers: update\n"
		"core persistentvolumeclaims: create,get,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:expand-controller", .rules =
		"core persistentvolumes: get,list,patch,update,watch\n"
		"core persistentvolumeclaims/status: patch,update\n"
		"core persistentvolumeclaims: get,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:generic-garbage-collector", .rules =
		"* *: delete,get,list,patch,update,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:horizontal-pod-autoscaler", .rules =
		"autoscaling horizontalpodautoscalers: get,list,watch\n"
		"autoscaling horizontalpodautoscalers/status: update\n"
		"* */scale: get,update\n"
		"core pods: list,watch\n"
		"metrics.k8s.io pods: list,watch\n"
		"custom.metrics.k8s.io *: get,list,watch\n"
		"external.metrics.k8s.io *: get,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:job-controller", .rules =
		"batch jobs: get,list,patch,update,watch\n"
		"batch jobs/status: update\n"
		"batch jobs/finalizers: update\n"
		"core pods: create,delete,list,patch,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:legacy-service-account-token-cleaner", .rules =
		"core configmaps names=kube-apiserver-legacy-service-account-token-tracking: get\n"
		"core secrets: delete,patch\n"
	},
	{ .name = "system:controller:namespace-controller", .rules =
		"core namespaces: delete,get,list,watch\n"
		"core namespaces/finalize,namespaces/status: update\n"
		"* *: delete,deletecollection,get,list,watch\n"
	},
	{ .name = "system:controller:node-controller", .rules =
		"core nodes: delete,get,list,patch,update,watch\n"
		"core nodes/status: patch,update\n"
		"core pods/status: patch,update\n"
		"core pods: delete,get,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:persistent-volume-binder", .rules =
		"core persistentvolumes: create,delete,get,list,update,watch\n"
		"core persistentvolumes/status: update\n"
		"core persistentvolumeclaims: get,list,update,watch\n"
		"core persistentvolumeclaims/status: update\n"
		"core pods: create,delete,get,list,watch\n"
		"storage.k8s.io storageclasses: get,list,watch\n"
		"core nodes: list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
		"core events: watch\n"
	},
	{ .name = "system:controller:pod-garbage-collector", .rules =
		"core pods: delete,list,watch\n"
		"core nodes: get,list,watch\n"
		"core pods/status: patch\n"
	},
	{ .name = "system:controller:pv-protection-controller", .rules =
		"core persistentvolumes: get,list,update,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:pvc-protection-controller", .rules =
		"core persistentvolumeclaims: get,list,update,watch\n"
		"core persistentvolumeclaims/status: update\n"
		"core pods: get,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:replicaset-controller", .rules =
		"apps,extensions replicasets: get,list,update,watch\n"
		"apps,extensions replicasets/status: update\n"
		"apps,extensions replicasets/finalizers: update\n"
		"core pods: create,delete,list,patch,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:replication-controller", .rules =
		"core replicationcontrollers: get,list,update,watch\n"
		"core replicationcontrollers/status: update\n"
		"core replicationcontrollers/finalizers: update\n"
		"core pods: create,delete,list,patch,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:resource-claim-controller", .rules =
		"core pods: get,list,watch\n"
		"core pods/finalizers: update\n"
		"resource.k8s.io resourceclaims: create,delete,get,list,watch\n"
		"resource.k8s.io resourceclaims,resourceclaims/status: patch,update\n"
		"core pods/status: patch,update\n"
		"core,events.k8s.io events: create,patch,update\n"
		"resource.k8s.io resourceclaims/binding: patch,update\n"
	},
	{ .name = "system:controller:resourcequota-controller", .rules =
		"* *: list,watch\n"
		"core resourcequotas/status: update\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:root-ca-cert-publisher", .rules =
		"core configmaps: create,update\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:route-controller", .rules =
		"core nodes: list,watch\n"
		"core nodes/status: patch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:selinux-warning-controller", .rules =
		"core,events.k8s.io events: create,patch,update\n"
		"core persistentvolumes: get,list,watch\n"
		"core persistentvolumeclaims: get,list,watch\n"
		"core pods: get,list,watch\n"
		"storage.k8s.io csidrivers: get,list,watch\n"
	},
	{ .name = "system:controller:service-account-controller", .rules =
		"core serviceaccounts: create\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:service-cidrs-controller", .rules =
		"networking.k8s.io servicecidrs: get,list,patch,update,watch\n"
		"networking.k8s.io servicecidrs/finalizers: patch,update\n"
		"networking.k8s.io servicecidrs/status: patch,update\n"
		"networking.k8s.io ipaddresses: get,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:service-controller", .rules =
		"core services: get,list,watch\n"
		"core services/status: patch,update\n"
		"core nodes: list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:statefulset-controller", .rules =
		"core pods: list,watch\n"
		"apps statefulsets: get,list,watch\n"
		"apps statefulsets/status: update\n"
		"apps statefulsets/finalizers: update\n"
		"core pods: create,delete,get,patch,update\n"
		"apps controllerrevisions: create,delete,get,list,patch,update,watch\n"
		"core persistentvolumeclaims: create,get,list,watch\n"
		"core persistentvolumeclaims: delete,update\n"
		"core pods/finalizers: update\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:ttl-after-finished-controller", .rules =
		"batch jobs: delete,get,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:ttl-controller", .rules =
		"core nodes: list,patch,update,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:validatingadmissionpolicy-status-controller", .rules =
		"admissionregistration.k8s.io validatingadmissionpolicies: get,list,watch\n"
		"admissionregistration.k8s.io validatingadmissionpolicies/status: get,patch,update\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .name = "system:controller:volumeattributesclass-protection-controller", .rules =
		"core persistentvolumeclaims: get,list,watch\n"
		"core persistentvolumes: get,list,watch\n"
		"storage.k8s.io volumeattributesclasses: get,list,update,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .ns = "kube-public", .name = "system:controller:bootstrap-signer", .rules =
		"core configmaps: get,list,watch\n"
		"core configmaps names=cluster-info: update\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ .ns = "kube-system", .name = "extension-apiserver-authentication-reader", .rules =
		"core configmaps names=extension-apiserver-authentication: get,list,watch\n"
	},
	{ .ns = "kube-system", .name = "system::leader-locking-kube-controller-manager", .rules =
		"coordination.k8s.io leases: create,get,list,update,watch\n"
		"coordination.k8s.io leasecandidates: create,get,list,update,watch\n"
	},
	{ .ns = "kube-system", .name = "system::leader-locking-kube-scheduler", .rules =
		"coordination.k8s.io leases: create,get,list,update,watch\n"
		"coordination.k8s.io leasecandidates: create,get,list,update,watch\n"
	},
	{ .ns = "kube-system", .name = "system:controller:bootstrap-signer", .rules =
		"core secrets: get,list,watch\n"
	},
	{ .ns = "kube-system", .name = "system:controller:cloud-provider", .rules =
		"core configmaps: create,get,list,watch\n"
	},
	{ .ns = "kube-system", .name = "system:controller:token-cleaner", .rules =
		"core secrets: delete,get,list,watch\n"
		"core,events.k8s.io events: create,patch,update\n"
	},
	{ 0 },
};

const struct bootstrap_binding bootstrap_bindings[] = {
	{ .name = "cluster-admin", .role_kind = "ClusterRole", .role = "cluster-admin", .subjects = "Group system:masters" },
	{ .name = "system:basic-user", .role_kind = "ClusterRole", .role = "system:basic-user", .subjects = "Group system:authenticated" },
	{ .name = "system:discovery", .role_kind = "ClusterRole", .role = "system:discovery", .subjects = "Group system:authenticated" },
	{ .name = "system:kube-controller-manager", .role_kind = "ClusterRole", .role = "system:kube-controller-manager",
	  .subjects = "User system:kube-controller-manager" },
	{ .name = "system:kube-dns", .role_kind = "ClusterRole", .role = "system:kube-dns", .subjects = "ServiceAccount kube-system/kube-dns" },
	{ .name = "system:kube-scheduler", .role_kind = "ClusterRole", .role = "system:kube-scheduler", .subjects = "User system:kube-scheduler" },
	{ .name = "system:monitoring", .role_kind = "ClusterRole", .role = "system:monitoring", .subjects = "Group system:monitoring" },
	{ .name = "system:node", .role_kind = "ClusterRole", .role = "system:node", .subjects = "" },
	{ .name = "system:node-proxier", .role_kind = "ClusterRole", .role = "system:node-proxier", .subjects = "User system:kube-proxy" },
	{ .name = "system:public-info-viewer", .role_kind = "ClusterRole", .role = "system:public-info-viewer",
	  .subjects = "Group system:authenticated; Group system:unauthenticated" },
	{ .name = "system:service-account-issuer-discovery", .role_kind = "ClusterRole", .role = "system:service-account-issuer-discovery",
	  .subjects = "Group system:serviceaccounts" },
	{ .name = "system:volume-scheduler", .role_kind = "ClusterRole", .role = "system:volume-scheduler",
	  .subjects = "User system:kube-scheduler" },
	/* Ours: machines join with a bootstrap token, renew their own certificates; their proxy, DNS and pod network are of a group of their own. */
	{ .name = "skiff:node-bootstrapper", .role_kind = "ClusterRole", .role = "system:node-bootstrapper",
	  .subjects = "Group system:bootstrappers" },
	{ .name = "skiff:node-client-approval", .role_kind = "ClusterRole",
	  .role = "system:certificates.k8s.io:certificatesigningrequests:nodeclient", .subjects = "Group system:bootstrappers" },
	{ .name = "skiff:node-client-renewal", .role_kind = "ClusterRole",
	  .role = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", .subjects = "Group system:nodes" },
	{ .name = "skiff:node-network", .role_kind = "ClusterRole", .role = "skiff:node-network", .subjects = "Group skiff:node-network" },
	{ .name = "skiff:node-proxier", .role_kind = "ClusterRole", .role = "system:node-proxier", .subjects = "Group skiff:node-network" },
	{ .ns = "kube-public", .name = "system:controller:bootstrap-signer",
	  .role_kind = "Role", .role = "system:controller:bootstrap-signer",
	  .subjects = "ServiceAccount kube-system/bootstrap-signer" },
	{ .ns = "kube-system", .name = "system::extension-apiserver-authentication-reader",
	  .role_kind = "Role", .role = "extension-apiserver-authentication-reader",
	  .subjects = "User system:kube-controller-manager; User system:kube-scheduler" },
	{ .ns = "kube-system", .name = "system::leader-locking-kube-controller-manager",
	  .role_kind = "Role", .role = "system::leader-locking-kube-controller-manager",
	  .subjects = "User system:kube-controller-manager; ServiceAccount kube-system/kube-controller-manager; ServiceAccount "
		"kube-system/leader-election-controller" },
	{ .ns = "kube-system", .name = "system::leader-locking-kube-scheduler",
	  .role_kind = "Role", .role = "system::leader-locking-kube-scheduler",
	  .subjects = "User system:kube-scheduler; ServiceAccount kube-system/kube-scheduler" },
	{ .ns = "kube-system", .name = "system:controller:bootstrap-signer",
	  .role_kind = "Role", .role = "system:controller:bootstrap-signer",
	  .subjects = "ServiceAccount kube-system/bootstrap-signer" },
	{ .ns = "kube-system", .name = "system:controller:cloud-provider",
	  .role_kind = "Role", .role = "system:controller:cloud-provider",
	  .subjects = "ServiceAccount kube-system/cloud-provider" },
	{ .ns = "kube-system", .name = "system:controller:token-cleaner",
	  .role_kind = "Role", .role = "system:controller:token-cleaner",
	  .subjects = "ServiceAccount kube-system/token-cleaner" },
	{ 0 },
};
/* clang-format on */
