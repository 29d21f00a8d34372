BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'done');
INSERT INTO "studies" VALUES(2,'half');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MAXIMIZE',2,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'config_text','"{\"task\": \"text-classification\", \"model\": \"./model\", \"data\": {\"train\": \"train.jsonl\"}, \"search_space\": {\"learning_rate\": {\"type\": \"choice\", \"values\": [0.0001, 0.0005, 0.001, 0.002]}, \"lora_r\": {\"type\": \"int\", \"low\": 4, \"high\": 16, \"step\": 4}}, \"training\": {\"max_examples\": 40, \"evaluations\": 2}, \"name\": \"done\", \"finalists\": {\"top\": 1, \"seeds\": 2}, \"pruner\": {\"type\": \"none\"}, \"search_strategy\": {\"type\": \"random\", \"num_trials\": 4}, \"promote\": false}"');
INSERT INTO "study_user_attributes" VALUES(2,1,'strategy','{"type": "random", "why": "as the file says"}');
INSERT INTO "study_user_attributes" VALUES(3,1,'budget_setting','"max_examples"');
INSERT INTO "study_user_attributes" VALUES(4,1,'config','{"name": "done", "task": "text-classification", "model": {"source": "/somewhere/model", "revision": null, "trust_remote_code": false, "adapter": null}, "data": {"train": {"source": "/somewhere/train.jsonl", "config": null, "revision": null, "split": null, "files": []}, "text": "text", "label": "label", "validation_size": 0.1, "test_size": 0.1, "split_seed": 0}, "method": "lora", "search_strategy": {"type": "random", "num_trials": 4, "enqueue": [], "warm_start": []}, "search_space": {"learning_rate": {"type": "choice", "values": [0.0001, 0.0005, 0.001, 0.002]}, "lora_r": {"type": "int", "low": 4, "high": 16, "log": false, "step": 4}}, "training": {"learning_rate": 0.0005, "batch_size": 16, "micro_batch_size": 16, "max_epochs": 3.0, "max_examples": 40, "max_steps": null, "evaluations": 2, "eval_steps": null, "early_stopping.patience": 3, "early_stopping.min_delta": 0.0, "warmup_ratio": 0.06, "lr_scheduler_type": "linear", "warmup_steps": null, "optim": "adamw_torch", "weight_decay": 0.01, "max_grad_norm": 1.0, "loss": "default", "focal_gamma": 2.0, "contrastive_margin": 0.5, "label_smoothing_factor": 0.0, "neftune_noise_alpha": null, "gradient_checkpointing": false, "packing": false, "logging_steps": null, "save_steps": null, "max_length": 256, "precision": "auto", "lora_r": 8, "lora_alpha": null, "alpha_ratio": 2.0, "lora_dropout": 0.0, "target_modules": "all-linear", "rank_pattern": null, "init_lora_weights": "default", "modules_to_save": null}, "metrics": [], "generation": {"examples": 64, "max_new_tokens": 64}, "objective": [{"metric": "f1_macro", "direction": "maximize"}], "constraints": {}, "pruner": {"type": "none", "metric": "f1_macro"}, "budget": {"trials": null, "hours": null, "until": null, "trial_minutes": null, "gpu_hours": null, "cost_per_hour": null, "cost_max": null}, "finalists": {"top": 1, "seeds": 2}, "trials": {"retries": 2, "stall_minutes": 30.0}, "promote": null, "seed": 0, "report_to": []}');
INSERT INTO "study_user_attributes" VALUES(5,1,'baseline','0');
INSERT INTO "study_user_attributes" VALUES(6,1,'spent','{"seconds": 0.0, "gpu_seconds": 0.0}');
INSERT INTO "study_user_attributes" VALUES(7,1,'finalists','{"contestants": [{"trial": 2, "params": {"learning_rate": 0.001, "lora_r": 8}, "repeats": [{"seed": 1, "value": 0.7874074987617654, "metrics": {"f1_macro": 0.7874074987617654}, "run_id": "repeat-2-0", "cause": null, "seconds": 0.02}, {"seed": 2, "value": 0.7840752506507148, "metrics": {"f1_macro": 0.7840752506507148}, "run_id": "repeat-2-1", "cause": null, "seconds": 0.02}], "is_baseline": false, "interval": {"mean": 0.7837744319144484, "low": 0.6711085638965898, "high": 0.8828375059862033}}, {"trial": 0, "params": {"learning_rate": 0.0005, "lora_r": 8}, "repeats": [{"seed": 1, "value": 0.7137770572584596, "metrics": {"f1_macro": 0.7137770572584596}, "run_id": "repeat-0-0", "cause": null, "seconds": 0.02}, {"seed": 2, "value": 0.708806787592846, "metrics": {"f1_macro": 0.708806787592846}, "run_id": "repeat-0-1", "cause": null, "seconds": 0.02}], "is_baseline": true, "interval": {"mean": 0.7085720028137876, "low": 0.6161611445925171, "high": 0.7898108297467721}}], "champion": 2, "against_baseline": {"trial": 0, "difference": 0.07520242910066077, "low": -0.0018112567915452011, "high": 0.15973267825143314, "p_value": 0.054972513743128434, "is_beyond_noise": false}, "against_runner_up": {"trial": 0, "difference": 0.07520242910066077, "low": -0.0018112567915452011, "high": 0.15973267825143314, "p_value": 0.054972513743128434, "is_beyond_noise": false}, "identity": "4badef8f88915d35f66d92dd727af183857eccc8cf6e73bff3c572537b6534a4", "test": {"champion": {"trial": 2, "repeat": 0, "metrics": {"f1_macro": 0.7889659330720531, "f1_micro": 0.79, "f1_weighted": 0.7889659330720531, "accuracy": 0.79, "accuracy_stderr": 0.0407308237088326, "precision_macro": 0.7957976336189311, "recall_macro": 0.79, "mcc": 0.5857689433539132, "roc_auc": 0.79, "loss": 0.2125925012382346, "f1/a": 0.7741935483870968, "f1/b": 0.8037383177570093}, "interval": {"mean": 0.7889659330720531, "low": 0.7050147492625369, "high": 0.866153103462443}}, "baseline": {"trial": 0, "repeat": 0, "metrics": {"f1_macro": 0.7064480210547626, "f1_micro": 0.71, "f1_weighted": 0.7064480210547626, "accuracy": 0.71, "accuracy_stderr": 0.04537620521815371, "precision_macro": 0.7206809583858764, "recall_macro": 0.71, "mcc": 0.43054849325498307, "roc_auc": 0.71, "loss": 0.28622294274154036, "f1/a": 0.6741573033707865, "f1/b": 0.7387387387387387}, "interval": {"mean": 0.7064480210547626, "low": 0.60996099609961, "high": 0.7894821128489324}}, "against_baseline": {"trial": 0, "difference": 0.08251791201729053, "low": 0.03221776020553202, "high": 0.14517704782712787, "p_value": 0.0009995002498750624, "is_beyond_noise": true}}}');
INSERT INTO "study_user_attributes" VALUES(8,1,'state','"complete"');
INSERT INTO "study_user_attributes" VALUES(9,1,'data','{"rows": {"train": 1000, "validation": 100, "test": 100}, "labels": ["a", "b"], "tokens_dir": "", "model_dir": "", "fingerprint": "1111111111111111111111111111111111111111111111111111111111111111", "model_fingerprint": "0000000000000000000000000000000000000000000000000000000000000000", "duplicates": 0, "truncated": 0, "train_tokens": 10000, "gpus": 0, "notes": [], "gpu_memory_mb": 0.0, "family": "encoder", "max_length": null, "scale": null, "unreleasable": {}}');
INSERT INTO "study_user_attributes" VALUES(10,1,'clock','"2026-11-28T12:00:00"');
INSERT INTO "study_user_attributes" VALUES(11,2,'config_text','"{\"task\": \"text-classification\", \"model\": \"./model\", \"data\": {\"train\": \"train.jsonl\"}, \"search_space\": {\"learning_rate\": {\"type\": \"choice\", \"values\": [0.0001, 0.0005, 0.001, 0.002]}, \"lora_r\": {\"type\": \"int\", \"low\": 4, \"high\": 16, \"step\": 4}}, \"training\": {\"max_examples\": 40, \"evaluations\": 2}, \"name\": \"half\", \"finalists\": {\"top\": 1, \"seeds\": 2}, \"pruner\": {\"type\": \"none\"}, \"search_strategy\": {\"type\": \"random\", \"num_trials\": 4}, \"promote\": false}"');
INSERT INTO "study_user_attributes" VALUES(12,2,'strategy','{"type": "random", "why": "as the file says"}');
INSERT INTO "study_user_attributes" VALUES(13,2,'budget_setting','"max_examples"');
INSERT INTO "study_user_attributes" VALUES(14,2,'config','{"name": "half", "task": "text-classification", "model": {"source": "/somewhere/model", "revision": null, "trust_remote_code": false, "adapter": null}, "data": {"train": {"source": "/somewhere/train.jsonl", "config": null, "revision": null, "split": null, "files": []}, "text": "text", "label": "label", "validation_size": 0.1, "test_size": 0.1, "split_seed": 0}, "method": "lora", "search_strategy": {"type": "random", "num_trials": 4, "enqueue": [], "warm_start": []}, "search_space": {"learning_rate": {"type": "choice", "values": [0.0001, 0.0005, 0.001, 0.002]}, "lora_r": {"type": "int", "low": 4, "high": 16, "log": false, "step": 4}}, "training": {"learning_rate": 0.0005, "batch_size": 16, "micro_batch_size": 16, "max_epochs": 3.0, "max_examples": 40, "max_steps": null, "evaluations": 2, "eval_steps": null, "early_stopping.patience": 3, "early_stopping.min_delta": 0.0, "warmup_ratio": 0.06, "lr_scheduler_type": "linear", "warmup_steps": null, "optim": "adamw_torch", "weight_decay": 0.01, "max_grad_norm": 1.0, "loss": "default", "focal_gamma": 2.0, "contrastive_margin": 0.5, "label_smoothing_factor": 0.0, "neftune_noise_alpha": null, "gradient_checkpointing": false, "packing": false, "logging_steps": null, "save_steps": null, "max_length": 256, "precision": "auto", "lora_r": 8, "lora_alpha": null, "alpha_ratio": 2.0, "lora_dropout": 0.0, "target_modules": "all-linear", "rank_pattern": null, "init_lora_weights": "default", "modules_to_save": null}, "metrics": [], "generation": {"examples": 64, "max_new_tokens": 64}, "objective": [{"metric": "f1_macro", "direction": "maximize"}], "constraints": {}, "pruner": {"type": "none", "metric": "f1_macro"}, "budget": {"trials": null, "hours": null, "until": null, "trial_minutes": null, "gpu_hours": null, "cost_per_hour": null, "cost_max": null}, "finalists": {"top": 1, "seeds": 2}, "trials": {"retries": 2, "stall_minutes": 30.0}, "promote": null, "seed": 0, "report_to": []}');
INSERT INTO "study_user_attributes" VALUES(15,2,'baseline','0');
INSERT INTO "study_user_attributes" VALUES(16,2,'spent','{"seconds": 0.0, "gpu_seconds": 0.0}');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,500000000,5.82035033520962419295e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,1,1000000000,7.22301949549497890323e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(3,2,500000000,5.32340775380819697382e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(4,2,1000000000,6.6442246996987064378e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(5,3,500000000,6.34042366810052548942e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(6,3,1000000000,7.87418141632461154877e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(7,4,500000000,6.30480618903252798546e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(8,4,1000000000,7.64847662526193294851e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(9,5,500000000,5.82035033520962419295e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(10,5,1000000000,7.22301949549497890323e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(11,6,500000000,5.32340775380819697382e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(12,6,1000000000,6.6442246996987064378e-01,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'learning_rate',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0005, 0.001, 0.002]}}');
INSERT INTO "trial_params" VALUES(2,1,'lora_r',8.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 4, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(3,2,'learning_rate',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0005, 0.001, 0.002]}}');
INSERT INTO "trial_params" VALUES(4,2,'lora_r',4.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 4, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(5,3,'learning_rate',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0005, 0.001, 0.002]}}');
INSERT INTO "trial_params" VALUES(6,3,'lora_r',8.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 4, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(7,4,'learning_rate',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0005, 0.001, 0.002]}}');
INSERT INTO "trial_params" VALUES(8,4,'lora_r',16.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 4, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(9,5,'learning_rate',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0005, 0.001, 0.002]}}');
INSERT INTO "trial_params" VALUES(10,5,'lora_r',8.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 4, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(11,6,'learning_rate',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0005, 0.001, 0.002]}}');
INSERT INTO "trial_params" VALUES(12,6,'lora_r',4.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 4, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(13,7,'learning_rate',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0005, 0.001, 0.002]}}');
INSERT INTO "trial_params" VALUES(14,7,'lora_r',8.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 4, "low": 4, "high": 16}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"learning_rate": 0.0005, "lora_r": 8}');
INSERT INTO "trial_system_attributes" VALUES(2,5,'fixed_params','{"learning_rate": 0.0005, "lora_r": 8}');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'begun','{"number": 0, "revision": 1, "identity": "a7e0bc7eddf8fcc14cf531199fa126a5dc523c9ae07c76d19239c8861069caef", "reused_from": null}');
INSERT INTO "trial_user_attributes" VALUES(2,1,'run_id','""');
INSERT INTO "trial_user_attributes" VALUES(3,1,'result','{"state": "complete", "value": 0.7223019495494979, "metrics": {"f1_macro": 0.7223019495494979}, "best_index": 1, "evaluations": [{"index": 0, "fraction": 0.5, "step": 0, "examples": 20, "tokens": 200, "metrics": {"f1_macro": 0.5820350335209624}, "seconds": 0.0}, {"index": 1, "fraction": 1.0, "step": 1, "examples": 40, "tokens": 400, "metrics": {"f1_macro": 0.7223019495494979}, "seconds": 0.0}], "stopped_by": "budget", "seconds": 0.02, "trainable_parameters": 0, "peak_rss_mb": 0.0, "adapter_mb": 0.0, "cause": null, "message": ""}');
INSERT INTO "trial_user_attributes" VALUES(4,2,'begun','{"number": 1, "revision": 1, "identity": "6a34a2cd4ef4ac56e1480c2fca04591d00ec36f614d0ecdb66c380c23b90eb35", "reused_from": null}');
INSERT INTO "trial_user_attributes" VALUES(5,2,'run_id','""');
INSERT INTO "trial_user_attributes" VALUES(6,2,'result','{"state": "complete", "value": 0.6644224699698706, "metrics": {"f1_macro": 0.6644224699698706}, "best_index": 1, "evaluations": [{"index": 0, "fraction": 0.5, "step": 0, "examples": 20, "tokens": 200, "metrics": {"f1_macro": 0.5323407753808197}, "seconds": 0.0}, {"index": 1, "fraction": 1.0, "step": 1, "examples": 40, "tokens": 400, "metrics": {"f1_macro": 0.6644224699698706}, "seconds": 0.0}], "stopped_by": "budget", "seconds": 0.02, "trainable_parameters": 0, "peak_rss_mb": 0.0, "adapter_mb": 0.0, "cause": null, "message": ""}');
INSERT INTO "trial_user_attributes" VALUES(7,3,'begun','{"number": 2, "revision": 1, "identity": "58f8de96fb67a5c39232715405d1c70b5ec2d0a3502eaec7ae190137681a6916", "reused_from": null}');
INSERT INTO "trial_user_attributes" VALUES(8,3,'run_id','""');
INSERT INTO "trial_user_attributes" VALUES(9,3,'result','{"state": "complete", "value": 0.7874181416324612, "metrics": {"f1_macro": 0.7874181416324612}, "best_index": 1, "evaluations": [{"index": 0, "fraction": 0.5, "step": 0, "examples": 20, "tokens": 200, "metrics": {"f1_macro": 0.6340423668100525}, "seconds": 0.0}, {"index": 1, "fraction": 1.0, "step": 1, "examples": 40, "tokens": 400, "metrics": {"f1_macro": 0.7874181416324612}, "seconds": 0.0}], "stopped_by": "budget", "seconds": 0.02, "trainable_parameters": 0, "peak_rss_mb": 0.0, "adapter_mb": 0.0, "cause": null, "message": ""}');
INSERT INTO "trial_user_attributes" VALUES(10,4,'begun','{"number": 3, "revision": 1, "identity": "120f0f8289468198b1ca3aa89291228b284bed7b34f781a112e666df5f3234a7", "reused_from": null}');
INSERT INTO "trial_user_attributes" VALUES(11,4,'run_id','""');
INSERT INTO "trial_user_attributes" VALUES(12,4,'result','{"state": "complete", "value": 0.7648476625261933, "metrics": {"f1_macro": 0.7648476625261933}, "best_index": 1, "evaluations": [{"index": 0, "fraction": 0.5, "step": 0, "examples": 20, "tokens": 200, "metrics": {"f1_macro": 0.6304806189032528}, "seconds": 0.0}, {"index": 1, "fraction": 1.0, "step": 1, "examples": 40, "tokens": 400, "metrics": {"f1_macro": 0.7648476625261933}, "seconds": 0.0}], "stopped_by": "budget", "seconds": 0.02, "trainable_parameters": 0, "peak_rss_mb": 0.0, "adapter_mb": 0.0, "cause": null, "message": ""}');
INSERT INTO "trial_user_attributes" VALUES(13,5,'begun','{"number": 0, "revision": 1, "identity": "a7e0bc7eddf8fcc14cf531199fa126a5dc523c9ae07c76d19239c8861069caef", "reused_from": null}');
INSERT INTO "trial_user_attributes" VALUES(14,5,'run_id','""');
INSERT INTO "trial_user_attributes" VALUES(15,5,'result','{"state": "complete", "value": 0.7223019495494979, "metrics": {"f1_macro": 0.7223019495494979}, "best_index": 1, "evaluations": [{"index": 0, "fraction": 0.5, "step": 0, "examples": 20, "tokens": 200, "metrics": {"f1_macro": 0.5820350335209624}, "seconds": 0.0}, {"index": 1, "fraction": 1.0, "step": 1, "examples": 40, "tokens": 400, "metrics": {"f1_macro": 0.7223019495494979}, "seconds": 0.0}], "stopped_by": "budget", "seconds": 0.02, "trainable_parameters": 0, "peak_rss_mb": 0.0, "adapter_mb": 0.0, "cause": null, "message": ""}');
INSERT INTO "trial_user_attributes" VALUES(16,6,'begun','{"number": 1, "revision": 1, "identity": "6a34a2cd4ef4ac56e1480c2fca04591d00ec36f614d0ecdb66c380c23b90eb35", "reused_from": null}');
INSERT INTO "trial_user_attributes" VALUES(17,6,'run_id','""');
INSERT INTO "trial_user_attributes" VALUES(18,6,'result','{"state": "complete", "value": 0.6644224699698706, "metrics": {"f1_macro": 0.6644224699698706}, "best_index": 1, "evaluations": [{"index": 0, "fraction": 0.5, "step": 0, "examples": 20, "tokens": 200, "metrics": {"f1_macro": 0.5323407753808197}, "seconds": 0.0}, {"index": 1, "fraction": 1.0, "step": 1, "examples": 40, "tokens": 400, "metrics": {"f1_macro": 0.6644224699698706}, "seconds": 0.0}], "stopped_by": "budget", "seconds": 0.02, "trainable_parameters": 0, "peak_rss_mb": 0.0, "adapter_mb": 0.0, "cause": null, "message": ""}');
INSERT INTO "trial_user_attributes" VALUES(19,7,'begun','{"number": 2, "revision": 1, "identity": "58f8de96fb67a5c39232715405d1c70b5ec2d0a3502eaec7ae190137681a6916", "reused_from": null}');
INSERT INTO "trial_user_attributes" VALUES(20,7,'run_id','""');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,7.22301949549497890323e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,6.6442246996987064378e-01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,7.87418141632461154877e-01,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,7.64847662526193294851e-01,'FINITE');
INSERT INTO "trial_values" VALUES(5,5,0,7.22301949549497890323e-01,'FINITE');
INSERT INTO "trial_values" VALUES(6,6,0,6.6442246996987064378e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-29 01:50:54.333829','2026-11-29 01:50:54.576594');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-29 01:50:54.659110','2026-11-29 01:50:54.830156');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-29 01:50:54.880205','2026-11-29 01:50:55.080284');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-29 01:50:55.129639','2026-11-29 01:50:55.333986');
INSERT INTO "trials" VALUES(5,0,2,'COMPLETE','2026-11-29 01:50:58.902251','2026-11-29 01:50:59.139871');
INSERT INTO "trials" VALUES(6,1,2,'COMPLETE','2026-11-29 01:50:59.212141','2026-11-29 01:50:59.379954');
INSERT INTO "trials" VALUES(7,2,2,'RUNNING','2026-11-29 01:50:59.396638',NULL);
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
