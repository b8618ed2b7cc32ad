"""Keys of a cluster file on EC2: those that exist, and those of which Ray's defaults will not do."""

from __future__ import annotations

PROVIDER_KEYS = (
    "type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "key_pair", "security_group",
    "aws_credentials", "cloudwatch", "disable_node_updaters", "disable_launch_config_check", "foreground_node_launch",
    "worker_liveness_check",
)  # fmt: skip

# The keys of EC2's RunInstances, by the key in node_config below which they appear. Values of keys without an entry are
# not checked. MinCount, MaxCount and SubnetId are left out, since Ray sets them; SubnetIds is Ray's own.
NODE_KEYS = {
    "node_config": (
        "AdditionalInfo", "BlockDeviceMappings", "CapacityReservationSpecification", "ClientToken", "CpuOptions",
        "CreditSpecification", "DisableApiStop", "DisableApiTermination", "DryRun", "EbsOptimized",
        "ElasticGpuSpecification", "ElasticInferenceAccelerators", "EnablePrimaryIpv6", "EnclaveOptions",
        "HibernationOptions", "IamInstanceProfile", "ImageId", "InstanceInitiatedShutdownBehavior",
        "InstanceMarketOptions", "InstanceType", "Ipv6AddressCount", "Ipv6Addresses", "KernelId", "KeyName",
        "LaunchTemplate", "LicenseSpecifications", "MaintenanceOptions", "MetadataOptions", "Monitoring",
        "NetworkInterfaces", "NetworkPerformanceOptions", "Operator", "Placement", "PrivateDnsNameOptions",
        "PrivateIpAddress", "RamdiskId", "SecondaryInterfaces", "SecurityGroupIds", "SecurityGroups", "SubnetIds",
        "TagSpecifications", "UserData",
    ),
    "BlockDeviceMappings": ("DeviceName", "Ebs", "NoDevice", "VirtualName"),
    "Ebs": (
        "AvailabilityZone", "AvailabilityZoneId", "DeleteOnTermination", "EbsCardIndex", "Encrypted", "Iops",
        "KmsKeyId", "OutpostArn", "SnapshotId", "Throughput", "VolumeInitializationRate", "VolumeSize", "VolumeType",
    ),
    "IamInstanceProfile": ("Arn", "Name"),
    "InstanceMarketOptions": ("MarketType", "SpotOptions"),
    "SpotOptions": (
        "BlockDurationMinutes", "InstanceInterruptionBehavior", "MaxPrice", "SpotInstanceType", "ValidUntil",
    ),
    "MetadataOptions": (
        "HttpEndpoint", "HttpProtocolIpv6", "HttpPutResponseHopLimit", "HttpTokens", "InstanceMetadataTags",
    ),
    "TagSpecifications": ("ResourceType", "Tags"),
}  # fmt: skip

# Ray fills in missing keys and commands. Nobody wants these defaults of its own.
NODE_NEEDS = {
    "InstanceType": "otherwise Ray takes its own",
    "ImageId": "otherwise Ray takes an image of Ubuntu 18.04",
    "SecurityGroupIds": "otherwise Ray makes a group that opens port 22 to the world",
    "IamInstanceProfile": "Ray's own lets the head do anything to EC2 and S3, and workers get none",
}
COMMANDS = {
    "setup_commands": "Ray's own commands install a development version of Ray",
    "head_setup_commands": "Ray's own commands install the newest boto3",
    "head_start_ray_commands": "Ray's own commands open the dashboard to the network",
    "worker_start_ray_commands": "Ray's own commands ask for no token",
}
