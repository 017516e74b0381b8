"""The feature gates that kube-proxy 1.37.1 knows, as data.

kube-proxy takes every gate of Kubernetes, also those that mean nothing to it, and refuses names
that no component has. The names, stages, defaults and locks are those of the program itself.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


class Stage(enum.Enum):
    """How far a feature has come."""

    ALPHA = "ALPHA"
    BETA = "BETA"
    GA = "GA"
    DEPRECATED = "DEPRECATED"


@dataclass(frozen=True, slots=True)
class Gate:
    """One feature gate; a locked one cannot be set to anything but its default."""

    name: str
    stage: Stage
    default: bool
    locked: bool


def known_gates() -> Mapping[str, Gate]:
    """Return every gate by its name."""
    return {gate.name: gate for gate in _gates()}


def gate_dependencies() -> Mapping[str, tuple[str, ...]]:
    """Return which gates must be on for a gate to be on."""
    needed: dict[str, tuple[str, ...]] = {}
    gate = ""
    for word in _DEPENDENCIES.split():
        if word.endswith(":"):
            gate = word.removesuffix(":")
            needed[gate] = ()
        else:
            needed[gate] += (word,)
    return needed


def _gates() -> Iterator[Gate]:
    for stage, default, locked, names in _NAMES:
        for name in names.split():
            yield Gate(name, stage, default, locked)


# stage, default, locked, names
_NAMES = (
    (
        Stage.ALPHA,
        False,
        False,
        """
        APIServerWebhookAuthenticationToken APIServingWithRoutine AllAlpha
        AtomicWriteVolumeUserFields CBORServingAndStorage CPUManagerPolicyAlphaOptions
        CRIListStreaming CSIVolumeHealth ClientsAllowCBOR ClientsPreferCBOR
        CloudControllerManagerWatchBasedRoutesReconciliation CloudControllerManagerWebhook
        CompositePodGroup ConsistentListFromCacheSkipTimeoutFallback ContainerStopSignals
        ControllerManagerReleaseLeaderElectionLockOnExit CrossNamespaceVolumeDataSource
        DRADerivedAttributes DRADeviceCompatibilityGroups DRAListTypeAttributes
        DRANodeAllocatableResources DRAOptionalNodeOperations DRAPartitionableDevicesType
        DRAResourcePoolStatus DefaultPodSysctls EmptyDirVolumeMode EventedPLEG
        EvictionRequestAPI GRPCContainerProbeTLS H2CContainerProbe ImageVolumeWithDigest
        InPlacePodVerticalScalingExclusiveCPUs InPlacePodVerticalScalingExclusiveMemory
        InPlacePodVerticalScalingMemoryBackedVolumes
        InPlacePodVerticalScalingSchedulerPreemption InterPodAffinityHostnameFastPath
        KubeProxyNFTablesLocalhostNodePorts KubeletAllocatedPodsEndpoint LoggingAlphaOptions
        MutablePVNodeAffinity NodeLifecycleConditions PodGroupPreemptionPolicy
        PodLogsQuerySplitStreams QOSReserved ReduceDefaultCrashLoopBackOffDecay
        RuntimeClassInImageCriApi SchedulerPreQueueingHints ShardedListAndWatch
        StatefulSetRecreateStrategy StorageVersionAPI TaintTolerationComparisonOperators
        TopologyAwareWorkloadScheduling TopologyManagerPolicyAlphaOptions
        UserNamespacesHostNetworkSupport VolumeBindMountOptions WindowsCPUAndMemoryAffinity
        WorkloadWithJob
        """,
    ),
    (
        Stage.BETA,
        True,
        False,
        """
        APIResponseCompression APIServerIdentity AllowParsingUserUIDFromCertAuth
        AllowUnsafeMalformedObjectDeletion AtomicFIFO
        AuthorizePodWebsocketUpgradeCreatePermission CPUManagerPolicyBetaOptions
        CRDObservedGenerationTracking ClearingNominatedNodeNameAfterBinding
        ClientsAllowCARotation ClientsAllowTLSCacheGC ComponentFlagz ComponentStatusz
        ConcurrentWatchObjectDecode ConstrainedImpersonation ContainerCheckpoint
        ContainerRestartRules ContextualLogging DRAConsumableCapacity DRADeviceBindingConditions
        DRAPartitionableDevices DRAResourceClaimGranularStatusAuthorization
        DRASchedulerFilterTimeout DeclarativeValidationBeta
        DeploymentReplicaSetTerminatingReplicas DetectCacheInconsistency EnvFiles
        EtcdRangeStream ExcludeAdmissionWebhookVirtualResources ExtendWebSocketsToKubelet
        GracefulNodeShutdown GracefulNodeShutdownBasedOnPodPriority HPAGeneration
        HPAOptimizedSelectorStore HPAScaleToZero HugepageAwareEviction
        InOrderInformersBatchProcess InPlacePodLevelResourcesVerticalScaling
        KubeletCrashLoopBackOffMax KubeletEnsureSecretPulledImages KubeletInUserNamespace
        KubeletSeparateDiskGC KubeletServiceAccountTokenForCredentialProviders
        ListFromCacheSnapshot LoggingBetaOptions ManifestBasedAdmissionControlConfig
        MatchLabelKeysInPodTopologySpread MatchLabelKeysInPodTopologySpreadSelectorMerge
        MaxUnavailableStatefulSet MemoryQoS MutablePodResourcesForSuspendedJobs
        MutableSchedulingDirectivesForSuspendedJobs NFTablesNetlink NativeHistograms
        NodeControllerLeaseCircuitBreaker NominatedNodeNameForExpectation OpenAPIEnums
        OpportunisticBatching PersistentVolumeClaimUnusedSinceTime PodDeletionCost
        PodLevelResources PodLevelResourcesFixDefaulting PodLevelResourcesFixKubeletQOSClass
        PodTopologyLabelsAdmission PodsAPI PortForwardWebsockets ReloadKubeletClientCAFile
        ReloadKubeletServerCertificateFile RemoteRequestHeaderUID ResourceHealthStatus
        ResourceHealthStatusMessage RestartAllContainersOnContainerExits
        RotateKubeletServerCertificate SchedulerAsyncPreemption SchedulerPopFromBackoffQ
        ServiceAccountNodeAudienceRestriction SizeBasedListCostEstimate
        StaleControllerConsistencyDaemonSet StaleControllerConsistencyHPA
        StaleControllerConsistencyJob StaleControllerConsistencyReplicaSet
        StaleControllerConsistencyStatefulSet StatefulSetSemanticRevisionComparison
        StorageCapacityScoring StorageVersionHash StrictIPCIDRValidation
        StructuredAuthenticationConfigurationEgressSelector
        StructuredAuthenticationConfigurationJWKSMetrics TokenRequestServiceAccountUIDValidation
        TopologyManagerPolicyBetaOptions TranslateStreamCloseWebsocketRequests
        UnauthenticatedHTTP2DOSMitigation UnknownVersionInteroperabilityProxy
        UnlockWhileProcessingFIFO VolumeLimitScaling WatchList WatchListClient
        WatchListCompression WebhookRoundTripLoadBalancing WindowsGracefulNodeShutdown
        """,
    ),
    (
        Stage.BETA,
        False,
        False,
        """
        AllBeta CoordinatedLeaderElection DRAFractionalCapacityRange DRAWorkloadResourceClaims
        GenericWorkload LocalStorageCapacityIsolationFSQuotaMonitoring
        PodAndContainerStatsFromCRI PodLevelResourceManagers SchedulerAsyncAPICalls
        """,
    ),
    (
        Stage.GA,
        True,
        False,
        """
        AllowServiceExternalIPs ClusterTrustBundle ClusterTrustBundleProjection
        CustomCPUCFSQuotaPeriod DRADeviceTaintRules DRADeviceTaints InformerResourceVersion
        MutatingAdmissionPolicy PodCertificateRequest SELinuxMount StorageVersionMigrator
        """,
    ),
    (
        Stage.GA,
        True,
        True,
        """
        CPUManagerPolicyOptions CRDValidationRatcheting CSIServiceAccountTokenSecrets
        CustomResourceFieldSelectors DRAAdminAccess DRAExtendedResource DRAPrioritizedList
        DRAResourceClaimDeviceStatus DeclarativeValidation DisableAllocatorDualWrite
        DynamicResourceAllocation ExecProbeTimeout ExternalServiceAccountTokenSigner
        HPAConfigurableTolerance HostnameOverride ImageMaximumGCAge ImageVolume InOrderInformers
        InPlacePodVerticalScaling InPlacePodVerticalScalingInitContainers JobManagedBy
        KubeletCgroupDriverFromCRI KubeletFineGrainedAuthz KubeletPSI
        KubeletPodResourcesDynamicResources KubeletPodResourcesGet KubeletTracing
        MatchLabelKeysInPodAffinity MultiCIDRServiceAllocator MutableCSINodeAllocatableCount
        NFTablesProxyMode NodeDeclaredFeatures NodeInclusionPolicyInPodTopologySpread
        NodeLogQuery NodeSwap PLEGOnDemandRelist PodObservedGenerationTracking
        PodReadyToStartContainersCondition PodSchedulingReadiness PreferSameTrafficDistribution
        ProcMountType RecoverVolumeExpansionFailure RecursiveReadOnlyMounts
        RelaxedEnvironmentVariableValidation RelaxedServiceNameValidation SELinuxChangePolicy
        SELinuxMountReadWriteOncePod SeparateTaintEvictionController ServiceAccountTokenJTI
        ServiceAccountTokenNodeBinding ServiceAccountTokenNodeBindingValidation
        ServiceAccountTokenPodNodeInfo SupplementalGroupsPolicy SystemdWatchdog
        TopologyManagerPolicyOptions UserNamespacesSupport VolumeAttributesClass
        WatchCacheInitializationPostStartHook WinDSR WinOverlay
        """,
    ),
    (
        Stage.DEPRECATED,
        True,
        False,
        """
        KubeProxyIPVS KubeletPodResourcesListUseActivePods ServiceCIDRStatusFieldWiping
        StorageNamespaceIndex
        """,
    ),
    (
        Stage.DEPRECATED,
        True,
        True,
        """
        AggregatedDiscoveryRemoveBetaType DisableCPUQuotaWithExclusiveCPUs
        DisableNodeKubeProxyVersion
        """,
    ),
    (
        Stage.DEPRECATED,
        False,
        False,
        """
        AllowDNSOnlyNodeCSR AllowInsecureKubeletCertificateSigningRequests
        ChangeContainerStatusOnKubeletRestart KMSv1 KubeletRegistrationGetOnExistsOnly
        WindowsHostNetwork
        """,
    ),
    (
        Stage.DEPRECATED,
        False,
        True,
        """
        AllowOverwriteTerminationGracePeriodSeconds DeclarativeValidationTakeover
        GitRepoVolumeDriver SeparateCacheWatchRPC
        """,
    ),
)

# Each name with a colon depends on those after it.
_DEPENDENCIES = """
ClusterTrustBundleProjection: ClusterTrustBundle
CompositePodGroup: GenericWorkload TopologyAwareWorkloadScheduling
DRAAdminAccess: DynamicResourceAllocation
DRAConsumableCapacity: DynamicResourceAllocation
DRADerivedAttributes: DynamicResourceAllocation
DRADeviceBindingConditions: DRAResourceClaimDeviceStatus DynamicResourceAllocation
DRADeviceCompatibilityGroups: DRAPartitionableDevices DynamicResourceAllocation
DRADeviceTaintRules: DRADeviceTaints
DRADeviceTaints: DynamicResourceAllocation
DRAExtendedResource: DynamicResourceAllocation
DRAFractionalCapacityRange: DRAConsumableCapacity
DRAListTypeAttributes: DynamicResourceAllocation
DRANodeAllocatableResources: DynamicResourceAllocation
DRAOptionalNodeOperations: DynamicResourceAllocation NodeDeclaredFeatures
DRAPartitionableDevices: DynamicResourceAllocation
DRAPartitionableDevicesType: DRAPartitionableDevices DRAResourcePoolStatus
    DynamicResourceAllocation
DRAPrioritizedList: DynamicResourceAllocation
DRAResourceClaimGranularStatusAuthorization: DRAResourceClaimDeviceStatus
    DynamicResourceAllocation
DRAResourcePoolStatus: DynamicResourceAllocation
DRASchedulerFilterTimeout: DynamicResourceAllocation
DRAWorkloadResourceClaims: DynamicResourceAllocation GenericWorkload
DeclarativeValidationBeta: DeclarativeValidation
DeclarativeValidationTakeover: DeclarativeValidation
DisableAllocatorDualWrite: MultiCIDRServiceAllocator
EventedPLEG: PLEGOnDemandRelist
ExtendWebSocketsToKubelet: NodeDeclaredFeatures
GracefulNodeShutdownBasedOnPodPriority: GracefulNodeShutdown
H2CContainerProbe: NodeDeclaredFeatures
ImageVolumeWithDigest: ImageVolume
InPlacePodLevelResourcesVerticalScaling: InPlacePodVerticalScaling NodeDeclaredFeatures
    PodLevelResources
InPlacePodVerticalScalingExclusiveCPUs: InPlacePodVerticalScaling
InPlacePodVerticalScalingExclusiveMemory: InPlacePodVerticalScaling
InPlacePodVerticalScalingInitContainers: InPlacePodVerticalScaling NodeDeclaredFeatures
InPlacePodVerticalScalingMemoryBackedVolumes: InPlacePodVerticalScaling NodeDeclaredFeatures
InPlacePodVerticalScalingSchedulerPreemption: InPlacePodVerticalScaling
KubeletAllocatedPodsEndpoint: InPlacePodVerticalScaling
MatchLabelKeysInPodTopologySpreadSelectorMerge: MatchLabelKeysInPodTopologySpread
NodeControllerLeaseCircuitBreaker: AtomicFIFO
PodGroupPreemptionPolicy: GenericWorkload
PodLevelResourceManagers: PodLevelResources
PodLevelResourcesFixDefaulting: PodLevelResources
PodLevelResourcesFixKubeletQOSClass: PodLevelResources
ProcMountType: UserNamespacesSupport
ResourceHealthStatus: DynamicResourceAllocation
ResourceHealthStatusMessage: ResourceHealthStatus
RestartAllContainersOnContainerExits: ContainerRestartRules NodeDeclaredFeatures
ServiceAccountTokenNodeBinding: ServiceAccountTokenNodeBindingValidation
StaleControllerConsistencyDaemonSet: AtomicFIFO
StaleControllerConsistencyHPA: AtomicFIFO
StaleControllerConsistencyJob: AtomicFIFO
StaleControllerConsistencyReplicaSet: AtomicFIFO
StaleControllerConsistencyStatefulSet: AtomicFIFO
StorageVersionAPI: APIServerIdentity
TopologyAwareWorkloadScheduling: GenericWorkload
UnknownVersionInteroperabilityProxy: APIServerIdentity
UserNamespacesHostNetworkSupport: NodeDeclaredFeatures UserNamespacesSupport
WindowsGracefulNodeShutdown: GracefulNodeShutdown
WorkloadWithJob: GenericWorkload
"""
