"""What other tools, papers and people call the fields of a spec."""

from __future__ import annotations

from collections.abc import Mapping

_NAMES: Mapping[str, str] = {
    "name": "experiment experiment_name run_name project sweep_name",
    "storage": "output output_dir out out_dir save_dir log_dir logdir results_dir storage_path",
    "data.root": "path dir data_dir data_path dataset dataset_dir folder source",
    "data.resize": "resize_to resolution",
    "data.crop": "image_size img_size input_size crop_size size center_crop",
    "data.train_crop_from": "progressive_resizing progressive_learning min_image_size",
    "data.train_crop": "train_size train_crop_size random_crop",
    "data.crop_scale": "min_scale scale rrc_scale",
    "data.flip": "hflip horizontal_flip flip_prob mirror",
    "data.jitter": "color_jitter colour_jitter brightness contrast",
    "data.erase": "random_erasing random_erase reprob cutout",
    "data.normalize": "normalise normalization normalisation mean std",
    "data.eval_flip": "tta test_time_augmentation",
    "data.eval_crops": "five_crop ten_crop",
    "data.auto_augment": "trivial_augment trivialaugment autoaugment aa ta_wide",
    "model.backbone": "network net arch architecture encoder model_name",
    "model.weights": "pretrained checkpoint ckpt init pretrained_weights",
    "model.dropout": "drop drop_rate dropout_rate",
    "model.drop_path": "stochastic_depth drop_path_rate",
    "train.epochs": "epoch num_epochs n_epochs max_epochs iterations",
    "train.batch_size": "bs batch batchsize train_batch_size per_device_train_batch_size",
    "train.optimizer": "optim opt optimiser",
    "train.lr": "learning_rate learningrate base_lr initial_lr lr_init max_lr lrs",
    "train.backbone_lr_scale": "backbone_lr lr_mult backbone_lr_mult",
    "train.freeze_backbone": "freeze frozen linear_probe",
    "train.freeze_bn_stats": "freeze_bn frozen_bn norm_eval bn_eval",
    "train.mixup": "mixup_alpha mix_up",
    "train.cutmix": "cutmix_alpha cut_mix",
    "train.layer_decay": "llrd layer_wise_lr_decay layerwise_lr_decay lr_decay_rate",
    "train.logit_adjustment": "logit_adjust tau",
    "train.momentum": "beta1 betas",
    "train.weight_decay": "wd decay l2 l2_penalty",
    "train.schedule": "lr_schedule lr_scheduler lr_policy",
    "train.warmup_epochs": "warmup warm_up num_warmup_epochs warmup_steps",
    "train.loss": "criterion loss_fn objective loss_function",
    "train.label_smoothing": "smoothing ls",
    "train.focal_gamma": "gamma",
    "train.teacher": "distillation distill soft_labels",
    "train.teacher_weight": "distillation_alpha distill_weight",
    "train.teacher_temperature": "distillation_temperature",
    "train.balanced_sampling": "weighted_sampler weighted_random_sampler class_balanced_sampling oversampling",
    "train.class_weighting": "class_weights class_weight",
    "train.ema": "ema_decay model_ema",
    "train.clip_grad": "clip grad_clip gradient_clip gradient_clip_val max_grad_norm clip_norm",
    "train.precision": "amp fp16 bf16 dtype mixed_precision",
    "train.layout": "channels_last memory_format",
    "search.method": "algorithm algo strategy sampler search_alg",
    "search.trials": "n_trials num_trials num_samples max_trials samples",
    "search.seed": "random_seed random_state",
    "scheduler.grace": "grace_period min_epochs min_resource",
    "scheduler.reduction": "reduction_factor eta",
    "resources.workers": "num_workers n_workers world_size nproc_per_node",
    "resources.gpus_per_worker": "gpu gpus num_gpus n_gpus gpus_per_trial",
    "resources.cpus_per_worker": "cpu cpus num_cpus n_cpus threads cpus_per_trial",
    "resources.concurrent_trials": "concurrency max_concurrent max_concurrent_trials parallel n_jobs",
    "resources.max_failures": "retries max_retries",
    "resources.epoch_timeout": "timeout time_limit",
}
_FIELDS = {synonym: name for name, synonyms in _NAMES.items() for synonym in synonyms.split()}


def meant(word: str) -> str:
    """The dotted name of the field that `word`, alone or with a section before it, is another name of; empty where it
    is none: learning_rate and train.learning_rate are train.lr."""
    return _FIELDS.get(word.rpartition(".")[2].lower().replace("-", "_"), "")
