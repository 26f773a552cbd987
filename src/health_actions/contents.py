"""What the report's index shows of each study, in this order: a file in tables/ or figures/, its heading, its text."""

HANDWASH_CONTENTS = [
    ("figure_1_classes.png", "Figure 1: the classes", "One frame of each class."),
    ("figure_2_counts.svg", "Figure 2: clips per class and split", "First fold."),
    ("table_1.csv", "Table 1: the architectures",
     "Published: accuracy on 77 validation clips of the real set. Reproduced: clip-level top-1 on the test clips of "
     "this run, with the number of clips and the 95 % interval. Weights: what the backbone started from, and whether "
     "it was trained. EfficientNet-Lite0 and the 3-D ResNet-18 are not the paper's."),
    ("table_1_architectures.svg", "Table 1 as a chart",
     "Test accuracy of each architecture with its 95 % interval, and the published validation accuracy."),
    ("table_2.csv", "Table 2: batch size and learning rate",
     "The best architecture of Table 1 by validation (the paper: AlexNet). Published: validation accuracy. Validation "
     "is what a setting is chosen by, reproduced the accuracy on test clips."),
    ("table_2_grid.svg", "Table 2 as heat maps", "Validation accuracy, published and reproduced."),
    ("table_3.csv", "Table 3: the size of the frames",
     "Published: validation accuracy and minutes of training. Operations: thousand million multiply-adds for one clip. "
     "This machine's own times are not part of the report, since they differ from run to run: make times."),
    ("table_3_sizes.svg", "Table 3 as a chart", "Test accuracy at each size with its 95 % interval."),
    ("table_4.csv", "Table 4: augmentation",
     "Pixel change: mean change of a pixel, of 255, in a clip that is augmented. Mirrored clips get the label of the "
     "other hand. The published row of translation most likely had none: its code did not know the name."),
    ("table_4_augmented_frames.png", "What each augmentation does",
     "Frames of one training clip, unchanged and changed."),
    ("table_4_augmentation.svg", "Table 4 as a chart", "Test accuracy with each augmentation and its 95 % interval."),
    ("table_5.csv", "Table 5: three streams against one",
     "Published: test accuracy, the three-stream one on other clips. Reproduced: all on the same test clips. The rows "
     "with a colon are the streams on their own."),
    ("table_5_streams.png", "What the three streams see", "Frames, optical flow and oriented gradients of one clip."),
    ("table_5_streams.svg", "Table 5 as a chart", "Test accuracy of each model and stream with its 95 % interval."),
    ("figure_5_learning_curves.svg", "Figure 5: learning curves",
     "Loss and clip top-1 by epoch in training and validation; line: mean of the folds, band: all folds."),
    ("figure_6_confusions.svg", "Figure 6: confusion matrix",
     "Test clips of the architecture that is best by validation; rows are predicted classes, columns actual ones."),
    ("figure_6_published.svg", "Figure 6 as published", "The paper's own test clips."),
    ("classes.csv", "Precision and recall of each action", "The architecture that is best by validation, test clips."),
    ("precision_recall.svg", "Precision and recall as a chart", "Of each action, as bars."),
    ("figure_7.png", "Figure 7: a misclassified clip",
     "Above the clip, in the middle what the model looked at, below a clip of the class that it took it for."),
    ("figure_8.png", "Figure 8: a misclassified clip", "As Figure 7."),
    ("figure_9.png", "Figure 9: a misclassified clip", "As Figure 7."),
    ("saliency.svg", "Does the model look at the hands?",
     "Share of the saliency that lies where something moves, against the share of the picture that moves."),
    ("switches.csv", "What the mistakes of the paper's code cost",
     "One switched on at a time. Difference: to the base, in shares of 1; lowest and highest over the repeats."),
    ("switches.svg", "The mistakes as a chart", "Difference to the base in points; lines: span of the repeats."),
    ("protocols.csv", "Protocols side by side",
     "The same architecture when clips are split at random within classes (the paper), by performer and by scene."),
    ("protocols.svg", "Protocols as a chart", "Each seed with its 95 % interval; bars: means over the seeds."),
    ("mcnemar.csv", "The first two architectures",
     "McNemar's exact test of the two best of Table 1 by validation: clips that both, one or neither has right."),
    ("audit.csv", "What the two sides of the split share",
     "Recordings, scenes and duplicates that test clips share with training or validation clips, fold by fold."),
]

NTU_CONTENTS = [
    ("actions.png", "The actions to recognise", "Eight moments of one clip of each, the square in the middle."),
    ("source_actions.png", "The actions to pretrain with", "Everyday actions of other performers."),
    ("counts.svg", "Clips per class and subset", "First fold."),
    ("audit.csv", "What the two sides of the split share",
     "Performers (recordings), cameras (scenes), movements filmed by another camera (takes) and equal clips that test "
     "clips share with training or validation clips, under the split in use and under others."),
    ("figure_2_training_input.png", "Figure 2: training input",
     "Snapshots after each transform: mirrored, cropped at a corner at one of five scales, resized."),
    ("figure_3_test_input.png", "Figure 3: test input",
     "Scaled, cropped in the centre; windows for video-level scores."),
    ("figure_6_costs.svg", "Figure 6: what the networks cost",
     "Parameters and multiply-adds, published and counted here. The paper's own Figure 6 is not described in the "
     "material at hand; this chart stands in its place."),
    ("costs.csv", "Costs of the networks",
     "Parameters for nine classes; million multiply-adds for 16 frames of 112 x 112 pixels; published clips per "
     "second."),
    ("figure_7_c3d.svg", "Figure 7: C3D", "Its structure, drawn from the network itself."),
    ("figure_8_resnet18.svg", "Figure 8: 3-D ResNet-18", "As Figure 7."),
    ("figure_9_resnet50.svg", "Figure 9: 3-D ResNet-50", "As Figure 7."),
    ("figure_10_resnet101.svg", "Figure 10: 3-D ResNet-101", "As Figure 7."),
    ("figure_11_resnext101.svg", "Figure 11: 3-D ResNeXt-101", "As Figure 7."),
    ("figure_12_mobilenetv2.svg", "Figure 12: 3-D MobileNetV2", "As Figure 7."),
    ("figure_13_shufflenetv2.svg", "Figure 13: 3-D ShuffleNetV2", "As Figure 7."),
    ("figure_14_squeezenet.svg", "Figure 14: 3-D SqueezeNet", "As Figure 7."),
    ("figure_15_learning_curves.svg", "Figure 15: learning curves",
     "Validation clip top-1 by epoch, from both starts. The paper's own Figure 15 is not described in the material at "
     "hand; this chart stands in its place."),
    ("figure_16_starts.svg", "Figure 16: from scratch and from pretrained weights",
     "Clip-level top-1 on test clips with 95 % intervals."),
    ("figure_16.csv", "Figure 16 as a table",
     "Clip-level scores are of the centre window of each clip, video-level ones are means over several windows. "
     "Validation is what models are chosen by."),
    ("table_3.csv", "Table 3: top-1 and top-2",
     "Published: random split that shares performers, real clips, Kinetics-600 weights (C3D from scratch). Reproduced: "
     "this run's test clips, pretrained weights where there are any."),
    ("figure_17_top1_top2.svg", "Figure 17: top-1 and top-2", "Table 3 as a chart."),
    ("alerts.csv", "Actions that must not be missed",
     "Recall: of the clips that show the action, the share that is called so; with its number of clips and 95 % "
     "interval."),
    ("table_4.csv", "Table 4: ResNet-101, each action",
     "Precision, recall and F1. The paper captions its Tables 4, 5 and 6 all 'Resnext101'; its Section 6.1 and list "
     "of tables say ResNet-101, ResNeXt-101 and ResNet-50, which is followed here."),
    ("figure_18_resnet101.svg", "Figure 18: ResNet-101, each action", "Table 4 as a chart."),
    ("table_5.csv", "Table 5: ResNeXt-101, each action", "As Table 4."),
    ("figure_19_resnext101.svg", "Figure 19: ResNeXt-101, each action", "Table 5 as a chart."),
    ("table_6.csv", "Table 6: ResNet-50, each action", "As Table 4; captioned 'Resnext101' in the paper."),
    ("figure_20_resnet50.svg", "Figure 20: ResNet-50, each action", "Table 6 as a chart."),
    ("classes_best.csv", "Precision and recall of each action", "The model that is best by validation."),
    ("confusions_best.svg", "Confusion matrix",
     "Test clips of the model that is best by validation; rows are predicted classes, columns actual ones. The paper "
     "names the matrix among its metrics and does not show it."),
    ("accuracy_costs.svg", "Accuracy against cost", "Top-1 against multiply-adds, published and reproduced."),
    ("accuracy_costs.csv", "Accuracy against cost as a table", "Published speeds: clips per second."),
    ("behaviour.csv", "Behaviour tests of the best model",
     "The share of clips on which the model behaves as it should, with their number and the 95 % interval: harmless "
     "changes leave its answer, plain clips are recognised, telling changes move it the right way."),
    ("behaviour.svg", "Behaviour tests as a chart", "Shares with 95 % intervals."),
    ("changes.png", "What the behaviour tests change", "One clip under each change."),
]
STUDIES = [
    {"name": "handwash", "title": "Study A: hand washing", "annotations": "02_handwash_annotations",
     "question": "Which of twelve hand-wash actions does a clip show? A person who uploads the clips of one wash can "
                 "then be told which actions are missing.",
     "contents": HANDWASH_CONTENTS},
    {"name": "ntu", "title": "Study B: medical actions", "annotations": "12_ntu_annotations",
     "question": "Which of nine medical actions does a clip of a patient show? Falling and staggering must not be "
                 "missed; headache, neck pain and chest pain differ by where a hand goes.",
     "contents": NTU_CONTENTS},
]
